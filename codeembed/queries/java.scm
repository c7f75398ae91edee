[(class_declaration name: (_) @name) (record_declaration name: (_) @name)] @class
[(interface_declaration name: (_) @name) (annotation_type_declaration name: (_) @name)] @interface
(enum_declaration name: (_) @name) @enum
[(method_declaration name: (_) @name)
 (constructor_declaration name: (_) @name)
 (compact_constructor_declaration name: (_) @name)
 (annotation_type_element_declaration name: (_) @name)] @function
[(line_comment) (block_comment)] @comment
