[(function_item name: (_) @name) (function_signature_item name: (_) @name)] @function
[(struct_item name: (_) @name) (union_item name: (_) @name)] @struct
(enum_item name: (_) @name) @enum
(trait_item name: (_) @name) @trait
(impl_item type: (_) @name) @impl
(mod_item name: (_) @name body: (_)) @module
(macro_definition name: (_) @name) @macro
(type_item name: (_) @name) @type
[(line_comment) (block_comment)] @comment
(attribute_item) @attached
