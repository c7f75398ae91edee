"""Other ways to write a program down for a model: its tree, its control flow, its data flow."""
