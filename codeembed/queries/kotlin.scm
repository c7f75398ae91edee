(class_declaration name: (_) @name) @class
(object_declaration name: (_) @name) @object
(function_declaration name: (_) @name) @function
(type_alias type: (_) @name) @type
[(line_comment) (block_comment)] @comment
