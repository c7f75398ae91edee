(namespace_definition name: (_) @name body: (_)) @module
(class_declaration name: (_) @name) @class
(interface_declaration name: (_) @name) @interface
(trait_declaration name: (_) @name) @trait
(enum_declaration name: (_) @name) @enum
[(function_definition name: (_) @name) (method_declaration name: (_) @name)] @function
(comment) @comment
