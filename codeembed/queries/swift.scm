(class_declaration declaration_kind: "class" name: (_) @name) @class
(class_declaration declaration_kind: "actor" name: (_) @name) @class
(class_declaration declaration_kind: "struct" name: (_) @name) @struct
(class_declaration declaration_kind: "enum" name: (_) @name) @enum
(class_declaration declaration_kind: "extension" name: (_) @name) @extension
(protocol_declaration name: (_) @name) @protocol
[(function_declaration name: (simple_identifier) @name)
 (protocol_function_declaration name: (simple_identifier) @name)
 (init_declaration name: _ @name)
 (deinit_declaration "deinit" @name)] @function
(typealias_declaration name: (type_identifier) @name) @type
[(comment) (multiline_comment)] @comment
