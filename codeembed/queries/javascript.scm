[(class_declaration name: (_) @name) (class name: (_) @name)] @class
[(function_declaration name: (_) @name) (generator_function_declaration name: (_) @name)] @function
(method_definition name: (_) @name) @function
(variable_declarator
  name: (identifier) @name
  value: [(arrow_function) (function_expression) (generator_function)]) @function
(variable_declarator name: (identifier) @name value: (class)) @class
(field_definition property: (_) @name value: [(arrow_function) (function_expression)]) @function
(assignment_expression
  left: [(member_expression property: (_) @name) (identifier) @name]
  right: [(arrow_function) (function_expression) (generator_function)]) @function
(pair key: (_) @name value: [(arrow_function) (function_expression)]) @function
(comment) @comment
(decorator) @attached
