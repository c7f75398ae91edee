"""Compiled languages as data: what a node of each grammar means."""

from __future__ import annotations

from dataclasses import replace

from codeembed.transform.syntax import Syntax, words

__all__ = ["CPP", "CSHARP", "GO", "JAVA", "RUST", "C"]

_C_DEAD = ("int {} = 0;", "if (0) {{ int {} = 1; }}")

JAVA = Syntax(
    wrappers=((b"class X {\n", b"\n}"),),
    functions=words("method_declaration constructor_declaration lambda_expression"),
    classes=words("class_body interface_body enum_body record_declaration"),
    blocks=words(
        "block for_statement enhanced_for_statement catch_clause try_with_resources_statement"
        " switch_block"
    ),
    binders=words(
        "variable_declarator.name enhanced_for_statement.name resource.name inferred_parameters"
        " formal_parameter.name lambda_expression.parameters catch_formal_parameter.name"
    ),
    parameters=words(
        "formal_parameter.name inferred_parameters lambda_expression.parameters"
        " spread_parameter>variable_declarator.name"
    ),
    others=words(
        "type_identifier method_invocation.name field_access.field labeled_statement"
        " break_statement continue_statement method_declaration.name constructor_declaration.name"
        " marker_annotation.name annotation.name element_value_pair.key method_reference"
    ),
    refused=words(
        "instanceof_expression.name type_pattern record_pattern_component scoped_identifier"
    ),
    visible_after=words("enhanced_for_statement"),
    positional=True,
    keywords=words(
        "abstract assert boolean break byte case catch char class const continue default do double"
        " else enum extends final finally float for goto if implements import instanceof int"
        " interface long native new package private protected public return short static strictfp"
        " super switch synchronized this throw throws transient try void volatile while true false"
        " null var record yield sealed permits"
    ),
    comments=words("line_comment block_comment"),
    bodies=words("block"),
    dead=("int {} = 0;", "if (false) {{ int {} = 1; }}", "String {} = null;"),
    exits=words(
        "return_statement throw_statement break_statement continue_statement yield_statement"
    ),
    numbers=words(
        "decimal_integer_literal decimal_floating_point_literal hex_integer_literal"
        " character_literal"
    ),
    numeric_types=words("int long short byte char float double"),
    literals=words("decimal_integer_literal string_literal true false null_literal"),
    calls=words("method_invocation"),
)

GO = Syntax(
    wrappers=((b"package p\n", b""),),
    functions=words("function_declaration method_declaration func_literal"),
    classes=words("struct_type interface_type"),
    blocks=words(
        "block if_statement for_statement expression_switch_statement type_switch_statement"
        " communication_case expression_case type_case default_case"
    ),
    binders=words(
        "short_var_declaration.left var_spec.name const_spec.name range_clause.left"
        " parameter_declaration.name variadic_parameter_declaration.name"
        " type_switch_statement.alias receive_statement.left"
    ),
    parameters=words("parameter_declaration.name variadic_parameter_declaration.name"),
    patterns=words("expression_list"),
    others=words(
        "type_identifier field_identifier label_name package_identifier function_declaration.name"
    ),
    refused=words("keyed_element.key literal_element"),
    visible_after=words("short_var_declaration var_spec const_spec range_clause"),
    positional=True,
    keywords=words(
        "break case chan const continue default defer else fallthrough for func go goto if import"
        " interface map package range return select struct switch type var true false nil iota"
        " append cap close copy delete len make new panic print println recover string int error"
        " min max clear any byte rune bool"
    ),
    pragma=(b"//go:", b"// +build", b"//export", b"#cgo", b"//line", b"//nolint"),
    bodies=words("block statement_list"),
    newline_ends=True,
    dead=("{} := 0; _ = {}", "if false {{ {} := 1; _ = {} }}"),
    exits=words(
        "return_statement break_statement continue_statement goto_statement fallthrough_statement"
    ),
    numbers=words("int_literal float_literal rune_literal"),
    numeric_types=words(
        "int int8 int16 int32 int64 uint uint8 uint16 uint32 uint64 float32 float64 byte rune"
    ),
    literals=words("int_literal float_literal interpreted_string_literal true false nil"),
    while_types=frozenset(),
    while_head="for {} ",
    endless="",
    conditions=words("if_statement"),
)

C = Syntax(
    endless="while (1) ",
    functions=words("function_definition"),
    classes=words("field_declaration_list enumerator_list"),
    blocks=words("compound_statement for_statement parameter_list"),
    binders=words("declaration.declarator init_declarator.declarator"),
    function_binders=words("parameter_declaration.declarator"),
    parameters=words("parameter_declaration.declarator"),
    patterns=words(
        "pointer_declarator.declarator array_declarator.declarator parenthesized_declarator"
        " init_declarator.declarator"
    ),
    others=words(
        "type_identifier field_identifier statement_identifier function_declarator.declarator"
    ),
    refused=words("qualified_identifier.name enumerator.name preproc_def.name preproc_arg"),
    prototypes=words("declaration field_declaration"),
    positional=True,
    poison=words(
        "preproc_def preproc_function_def preproc_ifdef preproc_if preproc_call"
        " asm_statement gnu_asm_expression preproc_include"
    ),
    keywords=words(
        "auto break case char const continue default do double else enum extern float for goto if"
        " inline int long register restrict return short signed sizeof static struct switch typedef"
        " union unsigned void volatile while bool true false NULL nullptr class new delete this"
        " template typename namespace using public private protected virtual try catch throw and or"
        " not xor main std cin cout endl string vector max min swap sort stdin stdout stderr errno"
    ),
    pragma=(b"// NOLINT", b"/* NOLINT"),
    bodies=words("compound_statement"),
    dead=_C_DEAD,
    exits=words(
        "return_statement break_statement continue_statement goto_statement throw_statement"
    ),
    numbers=words("number_literal char_literal"),
    numeric_types=frozenset(
        {"int", "long", "short", "char", "float", "double", "unsigned", "size_t", "long long"}
        | {"unsigned int", "unsigned long", "unsigned char", "long long int", "long int"}
        | {"bool", "int32_t", "int64_t", "uint32_t", "uint64_t", "uint8_t", "ptrdiff_t"}
    ),
    literals=words("number_literal string_literal char_literal true false null"),
)

CPP = replace(
    C,
    declares_types=True,
    wrappers=((b"class X {\n", b"\n};"),),
    functions=C.functions | words("lambda_expression"),
    blocks=C.blocks | words("for_range_loop catch_clause if_statement while_statement"),
    binders=C.binders | words("for_range_loop.declarator"),
    function_binders=C.function_binders | words("optional_parameter_declaration.declarator"),
    parameters=C.parameters | words("optional_parameter_declaration.declarator"),
    patterns=C.patterns | words("reference_declarator structured_binding_declarator"),
    # In `vector<int> v(n);` the grammar takes `n` for a type.
    others=(C.others - words("type_identifier")) | words("namespace_identifier"),
    visible_after=words("for_range_loop"),
)

CSHARP = Syntax(
    wrappers=((b"class X {\n", b"\n}"),),
    functions=words(
        "method_declaration constructor_declaration lambda_expression local_function_statement"
        " anonymous_method_expression"
    ),
    classes=words("declaration_list record_declaration"),
    blocks=words(
        "block for_statement foreach_statement catch_clause using_statement switch_section"
        " fixed_statement"
    ),
    binders=words(
        "variable_declarator.name foreach_statement.left catch_declaration.name parameter.name"
        " implicit_parameter parameter_list.name lambda_expression.parameters"
    ),
    parameters=words(
        "parameter.name parameter_list.name implicit_parameter lambda_expression.parameters"
    ),
    patterns=words("tuple_pattern tuple_pattern.name"),
    others=words(
        "member_access_expression.name generic_name labeled_statement method_declaration.name"
        " constructor_declaration.name type_argument_list qualified_name qualified_name.name"
        " qualified_name.qualifier base_list attribute.name variable_declaration.type"
        " parameter.type object_creation_expression.type cast_expression.type"
        " method_declaration.type"
        " method_declaration.returns foreach_statement.type catch_declaration.type array_type.type"
        " member_binding_expression.name as_expression.right nullable_type.type generic_name.name"
    ),
    refused=words(
        "argument.name declaration_pattern.name declaration_expression.name"
        " anonymous_object_creation_expression initializer_expression>assignment_expression.left"
        " name_equals local_function_statement.name initializer_expression goto_statement"
    ),
    visible_after=words("foreach_statement"),
    positional=True,
    poison=words("query_expression preproc_if preproc_region switch_expression"),
    poison_names=words("nameof"),
    keywords=words(
        "abstract as base bool break byte case catch char checked class const continue decimal"
        " default delegate do double else enum event explicit extern false finally fixed float for"
        " foreach goto if implicit in int interface internal is lock long namespace new null object"
        " operator out override params private protected public readonly ref return sbyte sealed"
        " short sizeof stackalloc static string struct switch this throw true try typeof uint ulong"
        " unchecked unsafe ushort using virtual void volatile while var value await async dynamic"
        " get set where yield from select group into let orderby join on equals by nameof"
    ),
    pragma=(b"// ReSharper", b"//lint"),
    bodies=words("block"),
    dead=("int {} = 0;", "if (false) {{ int {} = 1; }}", "string {} = null;"),
    exits=words(
        "return_statement throw_statement break_statement continue_statement goto_statement"
        " yield_statement"
    ),
    numbers=words("integer_literal real_literal character_literal"),
    numeric_types=words("int long short byte char float double uint ulong ushort sbyte decimal"),
    literals=words("integer_literal string_literal boolean_literal null_literal"),
    calls=words("invocation_expression"),
)

RUST = Syntax(
    functions=words("function_item closure_expression"),
    classes=words("impl_item trait_item field_declaration_list enum_variant_list mod_item"),
    blocks=words("block match_arm for_expression if_expression while_expression"),
    binders=words(
        "let_declaration.pattern for_expression.pattern let_condition.pattern match_pattern"
    ),
    function_binders=words("parameter.pattern closure_parameters"),
    parameters=words("parameter.pattern closure_parameters"),
    patterns=words(
        "tuple_pattern tuple_struct_pattern struct_pattern field_pattern.pattern ref_pattern"
        " mut_pattern reference_pattern slice_pattern or_pattern captured_pattern"
        " remaining_field_pattern"
    ),
    others=words(
        "type_identifier field_identifier tuple_struct_pattern.type lifetime label"
        " scoped_identifier.path scoped_identifier.name function_item.name macro_invocation.macro"
        " generic_function.function"
    ),
    refused=words(
        "const_item.name static_item.name shorthand_field_initializer field_pattern.name"
    ),
    visible_after=words("let_declaration for_expression let_condition"),
    positional=True,
    strings_mention=True,
    capitals_are_constants=True,
    poison=words("macro_definition"),
    poison_names=words("stringify"),
    keywords=words(
        "as async await break const continue crate dyn else enum extern false fn for if impl in let"
        " loop match mod move mut pub ref return self Self static struct super trait true type"
        " unsafe use where while abstract become box do final macro override priv typeof unsized"
        " virtual yield try union"
    ),
    comments=words("line_comment block_comment"),
    bodies=words("block"),
    dead=("let {} = 0;", "if false {{ let {} = 1; }}"),
    exits=words("return_expression break_expression continue_expression"),
    numbers=words("integer_literal float_literal"),
    numeric_types=words("i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize f32 f64"),
    literals=words("integer_literal float_literal string_literal boolean_literal"),
    ifs=words("if_expression"),
    while_types=words("while_expression"),
    endless="loop ",
    guard="if !({}) {{ break; }}",
    for_types=frozenset(),
    returns=words("return_expression"),
    conditions=words("if_expression while_expression"),
)
