[(class_declaration name: (_) @name)
 (abstract_class_declaration name: (_) @name)
 (class name: (_) @name)] @class
(interface_declaration name: (_) @name) @interface
(enum_declaration name: (_) @name) @enum
(type_alias_declaration name: (_) @name) @type
[(internal_module name: (_) @name) (module name: (_) @name)] @module
[(function_declaration name: (_) @name)
 (generator_function_declaration name: (_) @name)
 (function_signature name: (_) @name)] @function
[(method_definition name: (_) @name)
 (method_signature name: (_) @name)
 (abstract_method_signature name: (_) @name)] @function
(variable_declarator
  name: (identifier) @name
  value: [(arrow_function) (function_expression) (generator_function)]) @function
(variable_declarator name: (identifier) @name value: (class)) @class
(public_field_definition name: (_) @name value: [(arrow_function) (function_expression)]) @function
(assignment_expression
  left: [(member_expression property: (_) @name) (identifier) @name]
  right: [(arrow_function) (function_expression) (generator_function)]) @function
(pair key: (_) @name value: [(arrow_function) (function_expression)]) @function
(comment) @comment
(decorator) @attached
