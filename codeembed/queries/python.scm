(class_definition name: (_) @name) @class
(function_definition name: (_) @name) @function
(type_alias_statement left: (_) @name) @type
(comment) @comment
(decorator) @attached
