"""The languages that code can be transformed in: :class:`Syntax` for each, data only."""

from __future__ import annotations

from dataclasses import replace

from codeembed.transform.syntax import Syntax

__all__ = ["SYNTAXES"]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_C_DEAD = ("int {} = 0;", "if (0) {{ int {} = 1; }}")

PYTHON = Syntax(
    functions=_set("function_definition lambda"),
    classes=_set("class_definition"),
    blocks=_set(
        "list_comprehension set_comprehension dictionary_comprehension generator_expression"
    ),
    binders=_set("for_in_clause.left"),
    function_binders=_set(
        "assignment.left for_statement.left named_expression.name as_pattern_target"
        " as_pattern.alias parameters lambda_parameters default_parameter.name"
        " typed_default_parameter.name typed_parameter augmented_assignment.left"
    ),
    parameters=_set(
        "parameters lambda_parameters default_parameter.name typed_default_parameter.name"
        " typed_parameter"
    ),
    patterns=_set(
        "pattern_list tuple_pattern list_pattern list_splat_pattern dictionary_splat_pattern tuple"
        " list as_pattern_target"
    ),
    others=_set("attribute.attribute keyword_argument.name"),
    refused=_set(
        "global_statement nonlocal_statement function_definition.name class_definition.name"
        " aliased_import.alias dotted_name import_from_statement.name delete_statement"
        " case_pattern keyword_pattern dotted_name case_clause.pattern"
    ),
    poison=_set("exec_statement match_statement"),
    poison_names=_set("eval exec locals vars globals dir super"),
    keywords=_set(
        "False None True and as assert async await break class continue def del elif else except"
        " finally for from global if import in is lambda nonlocal not or pass raise return try"
        " while with yield match case print exec"
    ),
    comment="# {}",
    pragma=(b"#!", b"# -*-", b"# type:", b"# noqa", b"# pragma", b"# coding", b"# vim", b"# fmt"),
    bodies=_set("block module"),
    newline_ends=True,
    indented=True,
    dead=("{} = 0", "if False: {} = 1", "{} = None"),
    exits=_set("return_statement raise_statement break_statement continue_statement"),
    binary=_set("binary_operator comparison_operator"),
    identities=_set("is"),
    numbers=_set("integer float"),
    literals=_set("integer float string true false none"),
    negation="not ({})",
    endless="while True:",
    guard="if not ({}): break",
    for_types=frozenset(),
    assignments=_set("assignment"),
    updates=frozenset(),
    calls=_set("call"),
    conditions=_set("if_statement while_statement elif_clause"),
)

JAVASCRIPT = Syntax(
    wrappers=((b"class X {\n", b"\n}"), (b"(", b"\n)")),
    functions=_set(
        "function_declaration function_expression arrow_function method_definition"
        " generator_function_declaration generator_function class_static_block"
    ),
    classes=_set("class_body"),
    blocks=_set("statement_block for_statement for_in_statement catch_clause switch_body"),
    binders=_set(
        "variable_declarator.name for_in_statement.left catch_clause.parameter formal_parameters"
        " arrow_function.parameter"
    ),
    function_binders=_set("variable_declaration>variable_declarator.name"),
    parameters=_set("formal_parameters arrow_function.parameter"),
    patterns=_set(
        "object_pattern array_pattern rest_pattern assignment_pattern.left pair_pattern.value"
        " object_assignment_pattern.left"
    ),
    refused=_set(
        "function_declaration.name function_expression.name class_declaration.name class.name"
        " generator_function_declaration.name jsx_opening_element.name jsx_closing_element.name"
        " jsx_self_closing_element.name import_specifier import_clause namespace_import"
        " export_specifier.name export_specifier.alias"
    ),
    others=_set("property_identifier statement_identifier private_property_identifier"),
    shorthands=_set("shorthand_property_identifier shorthand_property_identifier_pattern"),
    variables=_set(
        "identifier shorthand_property_identifier shorthand_property_identifier_pattern"
    ),
    poison=_set("with_statement export_statement"),
    poison_names=_set("eval arguments Function"),
    keywords=_set(
        "await break case catch class const continue debugger default delete do else enum export"
        " extends false finally for function if implements import in instanceof interface let new"
        " null package private protected public return static super switch this throw true try"
        " typeof undefined var void while with yield arguments eval async of get set NaN Infinity"
    ),
    comments=_set("comment html_comment hash_bang_line"),
    pragma=(
        b"// @", b"//#", b"/* webpack", b"/*#", b"/* @", b"// eslint", b"/* eslint", b"#!", b"<!",
    ),
    bodies=_set("statement_block program"),
    newline_ends=True,
    dead=("var {} = 0;", "if (false) {{ var {} = 1; }}", "let {} = null;"),
    exits=_set("return_statement throw_statement break_statement continue_statement"),
    mirrors={
        "<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!=", "===": "===",
        "!==": "!==",
    },
    identities=_set("=== !=="),
    numbers=_set("number"),
    literals=_set("number string true false null"),
)  # fmt: skip

TYPESCRIPT = replace(
    JAVASCRIPT,
    blocks=JAVASCRIPT.blocks,
    binders=JAVASCRIPT.binders | _set("required_parameter.pattern optional_parameter.pattern"),
    parameters=JAVASCRIPT.parameters
    | _set("required_parameter.pattern optional_parameter.pattern"),
    refused=JAVASCRIPT.refused
    | _set("enum_declaration.name type_query function_signature.name type_predicate.name asserts"),
    others=JAVASCRIPT.others | _set("type_identifier"),
    classes=JAVASCRIPT.classes | _set("interface_body object_type"),
)

JAVA = Syntax(
    wrappers=((b"class X {\n", b"\n}"),),
    functions=_set("method_declaration constructor_declaration lambda_expression"),
    classes=_set("class_body interface_body enum_body record_declaration"),
    blocks=_set(
        "block for_statement enhanced_for_statement catch_clause try_with_resources_statement"
        " switch_block"
    ),
    binders=_set(
        "variable_declarator.name enhanced_for_statement.name resource.name inferred_parameters"
        " formal_parameter.name lambda_expression.parameters catch_formal_parameter.name"
    ),
    parameters=_set(
        "formal_parameter.name inferred_parameters lambda_expression.parameters"
        " spread_parameter>variable_declarator.name"
    ),
    others=_set(
        "type_identifier method_invocation.name field_access.field labeled_statement"
        " break_statement continue_statement method_declaration.name constructor_declaration.name"
        " marker_annotation.name annotation.name element_value_pair.key method_reference"
    ),
    refused=_set(
        "instanceof_expression.name type_pattern record_pattern_component scoped_identifier"
    ),
    visible_after=_set("enhanced_for_statement"),
    positional=True,
    keywords=_set(
        "abstract assert boolean break byte case catch char class const continue default do double"
        " else enum extends final finally float for goto if implements import instanceof int"
        " interface long native new package private protected public return short static strictfp"
        " super switch synchronized this throw throws transient try void volatile while true false"
        " null var record yield sealed permits"
    ),
    comments=_set("line_comment block_comment"),
    bodies=_set("block"),
    dead=("int {} = 0;", "if (false) {{ int {} = 1; }}", "String {} = null;"),
    exits=_set(
        "return_statement throw_statement break_statement continue_statement yield_statement"
    ),
    numbers=_set(
        "decimal_integer_literal decimal_floating_point_literal hex_integer_literal"
        " character_literal"
    ),
    numeric_types=_set("int long short byte char float double"),
    literals=_set("decimal_integer_literal string_literal true false null_literal"),
    calls=_set("method_invocation"),
)

GO = Syntax(
    wrappers=((b"package p\n", b""),),
    functions=_set("function_declaration method_declaration func_literal"),
    classes=_set("struct_type interface_type"),
    blocks=_set(
        "block if_statement for_statement expression_switch_statement type_switch_statement"
        " communication_case expression_case type_case default_case"
    ),
    binders=_set(
        "short_var_declaration.left var_spec.name const_spec.name range_clause.left"
        " parameter_declaration.name variadic_parameter_declaration.name"
        " type_switch_statement.alias receive_statement.left"
    ),
    parameters=_set("parameter_declaration.name variadic_parameter_declaration.name"),
    patterns=_set("expression_list"),
    others=_set(
        "type_identifier field_identifier label_name package_identifier function_declaration.name"
    ),
    refused=_set("keyed_element.key literal_element"),
    visible_after=_set("short_var_declaration var_spec const_spec range_clause"),
    positional=True,
    keywords=_set(
        "break case chan const continue default defer else fallthrough for func go goto if import"
        " interface map package range return select struct switch type var true false nil iota"
        " append cap close copy delete len make new panic print println recover string int error"
        " min max clear any byte rune bool"
    ),
    pragma=(b"//go:", b"// +build", b"//export", b"#cgo", b"//line", b"//nolint"),
    bodies=_set("block statement_list"),
    newline_ends=True,
    dead=("{} := 0; _ = {}", "if false {{ {} := 1; _ = {} }}"),
    exits=_set(
        "return_statement break_statement continue_statement goto_statement fallthrough_statement"
    ),
    numbers=_set("int_literal float_literal rune_literal"),
    numeric_types=_set(
        "int int8 int16 int32 int64 uint uint8 uint16 uint32 uint64 float32 float64 byte rune"
    ),
    literals=_set("int_literal float_literal interpreted_string_literal true false nil"),
    while_types=frozenset(),
    while_head="for {} ",
    endless="",
    assignments=_set("assignment_statement"),
    updates=_set("inc_statement dec_statement"),
    conditions=_set("if_statement"),
)

C = Syntax(
    endless="while (1) ",
    functions=_set("function_definition"),
    classes=_set("field_declaration_list enumerator_list"),
    blocks=_set("compound_statement for_statement parameter_list"),
    binders=_set("declaration.declarator init_declarator.declarator"),
    function_binders=_set("parameter_declaration.declarator"),
    parameters=_set("parameter_declaration.declarator"),
    patterns=_set(
        "pointer_declarator.declarator array_declarator.declarator parenthesized_declarator"
        " init_declarator.declarator"
    ),
    others=_set(
        "type_identifier field_identifier statement_identifier function_declarator.declarator"
    ),
    refused=_set("qualified_identifier.name enumerator.name preproc_def.name preproc_arg"),
    positional=True,
    poison=_set(
        "preproc_def preproc_function_def preproc_ifdef preproc_if preproc_call"
        " asm_statement gnu_asm_expression preproc_include"
    ),
    keywords=_set(
        "auto break case char const continue default do double else enum extern float for goto if"
        " inline int long register restrict return short signed sizeof static struct switch typedef"
        " union unsigned void volatile while bool true false NULL nullptr class new delete this"
        " template typename namespace using public private protected virtual try catch throw and or"
        " not xor main std cin cout endl string vector max min swap sort stdin stdout stderr errno"
    ),
    pragma=(b"// NOLINT", b"/* NOLINT"),
    bodies=_set("compound_statement"),
    dead=_C_DEAD,
    exits=_set(
        "return_statement break_statement continue_statement goto_statement throw_statement"
    ),
    numbers=_set("number_literal char_literal"),
    numeric_types=frozenset(
        {"int", "long", "short", "char", "float", "double", "unsigned", "size_t", "long long"}
        | {"unsigned int", "unsigned long", "unsigned char", "long long int", "long int"}
        | {"bool", "int32_t", "int64_t", "uint32_t", "uint64_t", "uint8_t", "ptrdiff_t"}
    ),
    literals=_set("number_literal string_literal char_literal true false null"),
)

CPP = replace(
    C,
    declares_types=True,
    wrappers=((b"class X {\n", b"\n};"),),
    functions=C.functions | _set("lambda_expression"),
    blocks=C.blocks | _set("for_range_loop catch_clause if_statement while_statement"),
    binders=C.binders | _set("for_range_loop.declarator"),
    function_binders=C.function_binders | _set("optional_parameter_declaration.declarator"),
    parameters=C.parameters | _set("optional_parameter_declaration.declarator"),
    patterns=C.patterns | _set("reference_declarator structured_binding_declarator"),
    others=C.others | _set("namespace_identifier"),
    visible_after=_set("for_range_loop"),
)

PHP = Syntax(
    wrappers=((b"class X {\n", b"\n}"),),
    functions=_set("function_definition method_declaration anonymous_function arrow_function"),
    classes=_set("class_declaration declaration_list trait_declaration"),
    variables=_set("variable_name"),
    sigil="$",
    function_binders=_set(
        "assignment_expression.left foreach_statement pair simple_parameter.name"
        " variadic_parameter.name catch_clause.name static_variable_declaration.name"
        " anonymous_function_use_clause augmented_assignment_expression.left"
        " reference_assignment_expression.left by_ref"
    ),
    parameters=_set("simple_parameter.name variadic_parameter.name"),
    patterns=_set("list_literal array_element_initializer by_ref pair reference_modifier"),
    others=_set(
        "member_access_expression.name member_call_expression.name scoped_call_expression.name"
        " nullsafe_member_access_expression.name nullsafe_member_call_expression.name"
        " function_call_expression.function named_type named_type.name qualified_name argument.name"
        " class_constant_access_expression object_creation_expression function_definition.name"
        " method_declaration.name namespace_name scoped_call_expression.scope"
        " scoped_property_access_expression.scope const_element"
    ),
    refused=_set(
        "global_declaration scoped_property_access_expression.name dynamic_variable_name"
        " property_element property_element.name property_promotion_parameter.name"
        " by_ref"
    ),
    poison_names=_set("compact extract eval get_defined_vars parse_str"),
    poison=_set(
        "dynamic_variable_name include_expression include_once_expression require_expression"
        " require_once_expression"
    ),
    keywords=_set(
        "this GLOBALS _GET _POST _SERVER _FILES _COOKIE _SESSION _REQUEST _ENV argv argc"
    ),
    pragma=(b"// @", b"/* @", b"/** @", b"// phpcs", b"#!"),
    bodies=_set("compound_statement"),
    dead=("{} = 0;", "if (false) {{ {} = 1; }}", "{} = null;"),
    exits=_set(
        "return_statement throw_expression break_statement continue_statement exit_statement"
        " goto_statement"
    ),
    mirrors={
        "<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!=", "===": "===",
        "!==": "!==",
    },
    identities=_set("=== !=="),
    numbers=_set("integer float"),
    literals=_set("integer float string boolean null"),
    then="body",
    calls=_set("function_call_expression member_call_expression scoped_call_expression"),
)  # fmt: skip

RUBY = Syntax(
    functions=_set("method singleton_method"),
    classes=_set("class module singleton_class"),
    blocks=_set("block do_block lambda"),
    binders=_set(
        "block_parameters lambda_parameters block_parameters.locals optional_parameter.name"
        " splat_parameter.name block_parameter.name hash_splat_parameter.name"
    ),
    function_binders=_set(
        "assignment.left for.pattern exception_variable operator_assignment.left method_parameters"
    ),
    parameters=_set("method_parameters block_parameters lambda_parameters optional_parameter.name"),
    patterns=_set(
        "left_assignment_list destructured_left_assignment rest_assignment destructured_parameter"
    ),
    others=_set(
        "call.method method.name singleton_method.name simple_symbol hash_key_symbol constant"
        " instance_variable global_variable class_variable alias undef"
    ),
    refused=_set("keyword_parameter.name array_pattern hash_pattern in_clause.pattern"),
    positional=True,
    poison=_set("case_match regex"),
    poison_names=_set(
        "binding eval instance_eval class_eval local_variables local_variable_get"
        " local_variable_set super"
    ),
    keywords=_set(
        "BEGIN END alias and begin break case class def defined? do else elsif end ensure false for"
        " if in module next nil not or redo rescue retry return self super then true undef unless"
        " until when while yield p puts print raise format loop lambda proc require"
    ),
    comment="# {}",
    pragma=(b"#!", b"# frozen", b"# encoding", b"# coding", b"# -*-", b"# rubocop", b"=begin"),
    bodies=_set("body_statement then block_body do program else"),
    newline_ends=True,
    dead=("{} = 0", "if false then {} = 1 end", "{} = nil"),
    exits=_set("return break next redo retry"),
    binary=_set("binary"),
    numbers=_set("integer float"),
    literals=_set("integer float string true false nil"),
    ifs=_set("if"),
    endless="",
    while_types=_set("while"),
    for_types=frozenset(),
    assignments=_set("assignment"),
    updates=frozenset(),
    calls=_set("call"),
    returns=_set("return"),
    conditions=_set("if while unless elsif if_modifier unless_modifier"),
)

CSHARP = Syntax(
    wrappers=((b"class X {\n", b"\n}"),),
    functions=_set(
        "method_declaration constructor_declaration lambda_expression local_function_statement"
        " anonymous_method_expression"
    ),
    classes=_set("declaration_list record_declaration"),
    blocks=_set(
        "block for_statement foreach_statement catch_clause using_statement switch_section"
        " fixed_statement"
    ),
    binders=_set(
        "variable_declarator.name foreach_statement.left catch_declaration.name parameter.name"
        " implicit_parameter parameter_list.name lambda_expression.parameters"
    ),
    parameters=_set(
        "parameter.name parameter_list.name implicit_parameter lambda_expression.parameters"
    ),
    patterns=_set("tuple_pattern tuple_pattern.name"),
    others=_set(
        "member_access_expression.name generic_name labeled_statement method_declaration.name"
        " constructor_declaration.name type_argument_list qualified_name qualified_name.name"
        " qualified_name.qualifier base_list attribute.name variable_declaration.type"
        " parameter.type object_creation_expression.type cast_expression.type"
        " method_declaration.type"
        " method_declaration.returns foreach_statement.type catch_declaration.type array_type.type"
        " member_binding_expression.name as_expression.right nullable_type.type generic_name.name"
    ),
    refused=_set(
        "argument.name declaration_pattern.name declaration_expression.name"
        " anonymous_object_creation_expression initializer_expression>assignment_expression.left"
        " name_equals local_function_statement.name initializer_expression goto_statement"
    ),
    visible_after=_set("foreach_statement"),
    positional=True,
    poison=_set("query_expression preproc_if preproc_region switch_expression"),
    poison_names=_set("nameof"),
    keywords=_set(
        "abstract as base bool break byte case catch char checked class const continue decimal"
        " default delegate do double else enum event explicit extern false finally fixed float for"
        " foreach goto if implicit in int interface internal is lock long namespace new null object"
        " operator out override params private protected public readonly ref return sbyte sealed"
        " short sizeof stackalloc static string struct switch this throw true try typeof uint ulong"
        " unchecked unsafe ushort using virtual void volatile while var value await async dynamic"
        " get set where yield from select group into let orderby join on equals by nameof"
    ),
    pragma=(b"// ReSharper", b"//lint"),
    bodies=_set("block"),
    dead=("int {} = 0;", "if (false) {{ int {} = 1; }}", "string {} = null;"),
    exits=_set(
        "return_statement throw_statement break_statement continue_statement goto_statement"
        " yield_statement"
    ),
    numbers=_set("integer_literal real_literal character_literal"),
    numeric_types=_set("int long short byte char float double uint ulong ushort sbyte decimal"),
    literals=_set("integer_literal string_literal boolean_literal null_literal"),
    updates=_set("postfix_unary_expression prefix_unary_expression"),
    calls=_set("invocation_expression"),
)

RUST = Syntax(
    functions=_set("function_item closure_expression"),
    classes=_set("impl_item trait_item field_declaration_list enum_variant_list mod_item"),
    blocks=_set("block match_arm for_expression if_expression while_expression"),
    binders=_set(
        "let_declaration.pattern for_expression.pattern let_condition.pattern match_pattern"
    ),
    function_binders=_set("parameter.pattern closure_parameters"),
    parameters=_set("parameter.pattern closure_parameters"),
    patterns=_set(
        "tuple_pattern tuple_struct_pattern struct_pattern field_pattern.pattern ref_pattern"
        " mut_pattern reference_pattern slice_pattern or_pattern captured_pattern"
        " remaining_field_pattern"
    ),
    others=_set(
        "type_identifier field_identifier tuple_struct_pattern.type lifetime label"
        " scoped_identifier.path scoped_identifier.name function_item.name macro_invocation.macro"
        " generic_function.function"
    ),
    refused=_set("const_item.name static_item.name shorthand_field_initializer field_pattern.name"),
    visible_after=_set("let_declaration for_expression let_condition"),
    positional=True,
    strings_mention=True,
    poison=_set("macro_definition"),
    poison_names=_set("stringify"),
    keywords=_set(
        "as async await break const continue crate dyn else enum extern false fn for if impl in let"
        " loop match mod move mut pub ref return self Self static struct super trait true type"
        " unsafe use where while abstract become box do final macro override priv typeof unsized"
        " virtual yield try union"
    ),
    comments=_set("line_comment block_comment"),
    bodies=_set("block"),
    dead=("let {} = 0;", "if false {{ let {} = 1; }}"),
    exits=_set("return_expression break_expression continue_expression"),
    numbers=_set("integer_literal float_literal"),
    numeric_types=_set("i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize f32 f64"),
    literals=_set("integer_literal float_literal string_literal boolean_literal"),
    ifs=_set("if_expression"),
    while_types=_set("while_expression"),
    endless="loop ",
    guard="if !({}) {{ break; }}",
    for_types=frozenset(),
    updates=frozenset(),
    returns=_set("return_expression"),
    conditions=_set("if_expression while_expression"),
)

SYNTAXES: dict[str, Syntax] = {
    "python": PYTHON,
    "javascript": JAVASCRIPT,
    "typescript": TYPESCRIPT,
    "tsx": TYPESCRIPT,
    "java": JAVA,
    "go": GO,
    "c": C,
    "cpp": CPP,
    "php": PHP,
    "ruby": RUBY,
    "csharp": CSHARP,
    "rust": RUST,
}
"""Syntax by the language's name; other languages have no transformations."""
