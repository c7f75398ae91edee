"""Small functions of our own in every language: a loop, a branch, a sum, a comment, a call."""

_C_BODY = """    int total = 0;
    int count = 1;
    // adds up
    for (int i = 0; i < n; i++) {
        if (i < 3) {
            total = total + i;
        } else {
            total = total - a;
        }
        count = count + 1;
    }
    while (count < a) {
        count += 2;
    }
    return total + count;
"""
SAMPLES = {
    "python": '''def work(a, n):
    """Adds up, naïve: é 😎."""
    total = 0
    count = 1
    # adds up
    for i in range(n):
        if i < 3:
            total = total + i
        else:
            total = total - a
        count = count + 1
    while count < a:
        count += 2
    return total + max(count, n)
''',
    "javascript": "function work(a, n) {\n" + _C_BODY.replace("int ", "let ") + "}\n",
    "typescript": "function work(a: number, n: number): number {\n"
    + _C_BODY.replace("int ", "let ")
    + "}\n",
    "java": "int work(int a, int n) {\n" + _C_BODY + "}\n",
    "c": "int work(int a, int n) {\n" + _C_BODY + "}\n",
    "cpp": "int work(int a, int n) {\n" + _C_BODY + "}\n",
    "csharp": "int Work(int a, int n) {\n" + _C_BODY + "}\n",
    "go": """func work(a int, n int) int {
    total := 0
    count := 1
    // adds up
    for i := 0; i < n; i++ {
        if i < 3 {
            total = total + i
        } else {
            total = total - a
        }
        count = count + 1
    }
    for count < a {
        count += 2
    }
    return total + count
}
""",
    "php": """function work($a, $n) {
    $total = 0;
    $count = 1;
    // adds up
    for ($i = 0; $i < $n; $i++) {
        if ($i < 3) {
            $total = $total + $i;
        } else {
            $total = $total - $a;
        }
        $count = $count + 1;
    }
    while ($count < $a) {
        $count += 2;
    }
    return $total + $count;
}
""",
    "ruby": """def work(a, n)
  total = 0
  count = 1
  # adds up
  (0...n).each do |i|
    if i < 3
      total = total + i
    else
      total = total - a
    end
    count = count + 1
  end
  while count < a
    count += 2
  end
  total + count
end
""",
    "rust": """fn work(a: i32, n: i32) -> i32 {
    let mut total = 0;
    let mut count = 1;
    // adds up
    for i in 0..n {
        if i < 3 {
            total = total + i;
        } else {
            total = total - a;
        }
        count = count + 1;
    }
    while count < a {
        count += 2;
    }
    total + count
}
""",
}
