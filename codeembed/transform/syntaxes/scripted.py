"""Scripting languages as data: what a node of each grammar means."""

from __future__ import annotations

from dataclasses import replace

from codeembed.transform.syntax import Syntax, words

__all__ = ["JAVASCRIPT", "PHP", "PYTHON", "RUBY", "TYPESCRIPT"]

PYTHON = Syntax(
    functions=words("function_definition lambda"),
    classes=words("class_definition"),
    blocks=words(
        "list_comprehension set_comprehension dictionary_comprehension generator_expression"
    ),
    binders=words("for_in_clause.left"),
    function_binders=words(
        "assignment.left for_statement.left named_expression.name as_pattern_target"
        " as_pattern.alias parameters lambda_parameters default_parameter.name"
        " typed_default_parameter.name typed_parameter augmented_assignment.left"
    ),
    parameters=words(
        "parameters lambda_parameters default_parameter.name typed_default_parameter.name"
        " typed_parameter"
    ),
    patterns=words(
        "pattern_list tuple_pattern list_pattern list_splat_pattern dictionary_splat_pattern tuple"
        " list as_pattern_target"
    ),
    others=words("attribute.attribute keyword_argument.name"),
    refused=words(
        "global_statement nonlocal_statement function_definition.name class_definition.name"
        " aliased_import.alias dotted_name import_from_statement.name delete_statement"
        " case_pattern keyword_pattern dotted_name case_clause.pattern"
    ),
    poison=words("exec_statement match_statement"),
    poison_names=words("eval exec locals vars globals dir super"),
    keywords=words(
        "False None True and as assert async await break class continue def del elif else except"
        " finally for from global if import in is lambda nonlocal not or pass raise return try"
        " while with yield match case print exec"
    ),
    comment="# {}",
    pragma=(b"#!", b"# -*-", b"# type:", b"# noqa", b"# pragma", b"# coding", b"# vim", b"# fmt"),
    bodies=words("block module"),
    newline_ends=True,
    indented=True,
    dead=("{} = 0", "if False: {} = 1", "{} = None"),
    exits=words("return_statement raise_statement break_statement continue_statement"),
    binary=words("binary_operator comparison_operator"),
    identities=words("is"),
    numbers=words("integer float"),
    literals=words("integer float string true false none"),
    negation="not ({})",
    endless="while True:",
    guard="if not ({}): break",
    for_types=frozenset(),
    calls=words("call"),
    conditions=words("if_statement while_statement elif_clause"),
)

JAVASCRIPT = Syntax(
    wrappers=((b"class X {\n", b"\n}"), (b"(", b"\n)")),
    functions=words(
        "function_declaration function_expression arrow_function method_definition"
        " generator_function_declaration generator_function class_static_block"
    ),
    classes=words("class_body"),
    blocks=words("statement_block for_statement for_in_statement catch_clause switch_body"),
    binders=words(
        "variable_declarator.name for_in_statement.left catch_clause.parameter formal_parameters"
        " arrow_function.parameter"
    ),
    function_binders=words("variable_declaration>variable_declarator.name"),
    parameters=words("formal_parameters arrow_function.parameter"),
    patterns=words(
        "object_pattern array_pattern rest_pattern assignment_pattern.left pair_pattern.value"
        " object_assignment_pattern.left"
    ),
    refused=words(
        "function_declaration.name function_expression.name class_declaration.name class.name"
        " generator_function_declaration.name jsx_opening_element.name jsx_closing_element.name"
        " jsx_self_closing_element.name import_specifier import_clause namespace_import"
        " export_specifier.name export_specifier.alias"
    ),
    others=words("property_identifier statement_identifier private_property_identifier"),
    shorthands=words("shorthand_property_identifier shorthand_property_identifier_pattern"),
    variables=words(
        "identifier shorthand_property_identifier shorthand_property_identifier_pattern"
    ),
    poison=words("with_statement export_statement"),
    poison_names=words("eval arguments Function"),
    keywords=words(
        "await break case catch class const continue debugger default delete do else enum export"
        " extends false finally for function if implements import in instanceof interface let new"
        " null package private protected public return static super switch this throw true try"
        " typeof undefined var void while with yield arguments eval async of get set NaN Infinity"
    ),
    comments=words("comment html_comment hash_bang_line"),
    pragma=(
        b"// @", b"//#", b"/* webpack", b"/*#", b"/* @", b"// eslint", b"/* eslint", b"#!", b"<!",
    ),
    bodies=words("statement_block program"),
    newline_ends=True,
    dead=("var {} = 0;", "if (false) {{ var {} = 1; }}", "let {} = null;"),
    exits=words("return_statement throw_statement break_statement continue_statement"),
    mirrors={
        "<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!=", "===": "===",
        "!==": "!==",
    },
    identities=words("=== !=="),
    numbers=words("number"),
    literals=words("number string true false null"),
)  # fmt: skip

TYPESCRIPT = replace(
    JAVASCRIPT,
    binders=JAVASCRIPT.binders | words("required_parameter.pattern optional_parameter.pattern"),
    parameters=JAVASCRIPT.parameters
    | words("required_parameter.pattern optional_parameter.pattern"),
    refused=JAVASCRIPT.refused
    | words("enum_declaration.name type_query function_signature.name type_predicate.name asserts"),
    others=JAVASCRIPT.others | words("type_identifier"),
    classes=JAVASCRIPT.classes | words("interface_body object_type"),
)

PHP = Syntax(
    wrappers=((b"class X {\n", b"\n}"),),
    functions=words("function_definition method_declaration anonymous_function arrow_function"),
    classes=words("class_declaration declaration_list trait_declaration"),
    variables=words("variable_name"),
    sigil="$",
    function_binders=words(
        "assignment_expression.left foreach_statement pair simple_parameter.name"
        " variadic_parameter.name catch_clause.name static_variable_declaration.name"
        " anonymous_function_use_clause augmented_assignment_expression.left"
        " reference_assignment_expression.left by_ref"
    ),
    parameters=words("simple_parameter.name variadic_parameter.name"),
    patterns=words("list_literal array_element_initializer by_ref pair reference_modifier"),
    others=words(
        "member_access_expression.name member_call_expression.name scoped_call_expression.name"
        " nullsafe_member_access_expression.name nullsafe_member_call_expression.name"
        " function_call_expression.function named_type named_type.name qualified_name argument.name"
        " class_constant_access_expression object_creation_expression function_definition.name"
        " method_declaration.name namespace_name scoped_call_expression.scope"
        " scoped_property_access_expression.scope const_element"
    ),
    refused=words(
        "global_declaration scoped_property_access_expression.name dynamic_variable_name"
        " property_element property_element.name property_promotion_parameter.name"
        " by_ref"
    ),
    poison_names=words("compact extract eval get_defined_vars parse_str"),
    poison=words(
        "dynamic_variable_name include_expression include_once_expression require_expression"
        " require_once_expression"
    ),
    keywords=words(
        "this GLOBALS _GET _POST _SERVER _FILES _COOKIE _SESSION _REQUEST _ENV argv argc"
    ),
    pragma=(b"// @", b"/* @", b"/** @", b"// phpcs", b"#!"),
    bodies=words("compound_statement"),
    dead=("{} = 0;", "if (false) {{ {} = 1; }}", "{} = null;"),
    exits=words(
        "return_statement throw_expression break_statement continue_statement exit_statement"
        " goto_statement"
    ),
    mirrors={
        "<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!=", "===": "===",
        "!==": "!==",
    },
    identities=words("=== !=="),
    numbers=words("integer float"),
    literals=words("integer float string boolean null"),
    then="body",
    calls=words("function_call_expression member_call_expression scoped_call_expression"),
)  # fmt: skip

RUBY = Syntax(
    functions=words("method singleton_method"),
    classes=words("class module singleton_class"),
    blocks=words("block do_block lambda"),
    binders=words(
        "block_parameters lambda_parameters block_parameters.locals optional_parameter.name"
        " splat_parameter.name block_parameter.name hash_splat_parameter.name"
    ),
    function_binders=words(
        "assignment.left for.pattern exception_variable operator_assignment.left method_parameters"
    ),
    parameters=words(
        "method_parameters block_parameters lambda_parameters optional_parameter.name"
    ),
    patterns=words(
        "left_assignment_list destructured_left_assignment rest_assignment destructured_parameter"
    ),
    others=words(
        "call.method method.name singleton_method.name simple_symbol hash_key_symbol constant"
        " instance_variable global_variable class_variable alias undef"
    ),
    refused=words("keyword_parameter.name array_pattern hash_pattern in_clause.pattern"),
    positional=True,
    poison=words("case_match regex"),
    poison_names=words(
        "binding eval instance_eval class_eval local_variables local_variable_get"
        " local_variable_set super"
    ),
    keywords=words(
        "BEGIN END alias and begin break case class def defined? do else elsif end ensure false for"
        " if in module next nil not or redo rescue retry return self super then true undef unless"
        " until when while yield p puts print raise format loop lambda proc require"
    ),
    comment="# {}",
    pragma=(b"#!", b"# frozen", b"# encoding", b"# coding", b"# -*-", b"# rubocop", b"=begin"),
    bodies=words("body_statement then block_body do program else"),
    newline_ends=True,
    dead=("{} = 0", "if false then {} = 1 end", "{} = nil"),
    exits=words("return break next redo retry"),
    binary=words("binary"),
    numbers=words("integer float"),
    literals=words("integer float string true false nil"),
    ifs=words("if"),
    endless="",
    while_types=words("while"),
    for_types=frozenset(),
    calls=words("call"),
    returns=words("return"),
    conditions=words("if while unless elsif if_modifier unless_modifier"),
)
