(namespace_declaration name: (_) @name) @module
[(class_declaration name: (_) @name) (record_declaration name: (_) @name)] @class
(interface_declaration name: (_) @name) @interface
(struct_declaration name: (_) @name) @struct
(enum_declaration name: (_) @name) @enum
(delegate_declaration name: (_) @name) @type
[(method_declaration name: (_) @name)
 (constructor_declaration name: (_) @name)
 (destructor_declaration name: (_) @name)
 (local_function_statement name: (_) @name)] @function
(property_declaration name: (_) @name accessors: (_)) @property
(comment) @comment
