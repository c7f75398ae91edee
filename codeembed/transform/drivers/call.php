<?php
// Child process: call one function of every version on every input; a line of JSON a version.
// A function can be declared once, and some errors end the process: each version gets a process,
// and what follows such an error another.

const TOO_LONG = "too long";

function shown($value, int $depth = 0): string {
    if ($depth > 6) return "...";
    if (is_array($value)) {
        $items = [];
        foreach ($value as $key => $each) $items[] = "$key: " . shown($each, $depth + 1);
        return "[" . implode(", ", array_slice($items, 0, 200)) . "]";
    }
    if ($value instanceof Generator) {
        $items = [];
        foreach ($value as $each) if (count($items) < 50) $items[] = $each; else break;
        return shown($items, $depth + 1);
    }
    if (is_object($value)) {
        $name = (new ReflectionObject($value))->getShortName();
        return $value instanceof Closure ? "closure" : $name . shown((array) $value, $depth + 1);
    }
    return is_resource($value) ? "resource" : var_export($value, true);
}

function one(string $function, array $arguments, int $seconds): string {
    ob_start();
    try {
        set_time_limit($seconds);
        $value = substr(shown($function(...$arguments)), 0, 2000);
        $after = substr(shown($arguments), 0, 2000);
        return "$value | $after | " . substr(ob_get_contents(), 0, 500);
    } catch (Throwable $error) {
        return get_class($error) . " | " . substr(ob_get_contents(), 0, 500);
    } finally {
        set_time_limit(0);
        while (ob_get_level() > 0) ob_end_clean();
    }
}

// Seconds of the processor that a process has used; 0 where the system does not tell.
function used(int $process): float {
    $fields = explode(" ", (string) @file_get_contents("/proc/$process/stat"));
    return count($fields) > 14 ? ($fields[13] + $fields[14]) / 100 : 0;
}

// Wait for a child; true if it was ended since a call took too long.
function waited(int $process, float $seconds, &$status): bool {
    $size = -1;
    while (pcntl_waitpid($process, $status, WNOHANG) === 0) {
        clearstatcache();
        if (filesize("told") !== $size) {
            $size = filesize("told");
            $used = used($process);
            $began = microtime(true);
        }
        if (used($process) - $used > $seconds || microtime(true) - $began > 20 * $seconds) {
            posix_kill($process, SIGKILL);
            pcntl_waitpid($process, $status);
            return true;
        }
        usleep(1000);
    }
    return false;
}

// A child: calls from one input on, a line each into the file.
function child(array $job, string $source, int $from, array $left_out): void {
    // Where the system does not tell what a process used, whole seconds are the least limit.
    $seconds = (int) ceil(2 * $job["milliseconds"] / 1000);
    $tell = fn($at, $value) => file_put_contents("told", json_encode(
        [$at, $value], JSON_INVALID_UTF8_SUBSTITUTE) . "\n", FILE_APPEND);
    $at = -1;
    register_shutdown_function(function () use (&$at, $tell) {
        $message = error_get_last()["message"] ?? "";
        while (ob_get_level() > 0) ob_end_clean();
        if ($at === PHP_INT_MAX) return;
        if (str_contains($message, "Maximum execution time")) $tell($at, TOO_LONG);
        elseif ($at >= 0) $tell($at, $message === "" ? "exit | " : "fatal error | ");
    });
    ob_start();
    set_time_limit(4 * $seconds);
    $opening = preg_match("/^\s*<\?(php)?/", $source) ? "?>" : "";
    try {
        eval($opening . $source);
    } catch (Throwable $error) {
        $at = PHP_INT_MAX;
        return;
    }
    ob_end_clean();
    if (!function_exists($job["function"])) {
        $at = PHP_INT_MAX;
        return;
    }
    foreach ($job["inputs"] as $at => $text) {
        if ($at < $from || isset($left_out[$at])) continue;
        $tell($at, one($job["function"], json_decode($text, true), $seconds));
    }
    $at = PHP_INT_MAX;
}

function version(array $job, string $source, array $left_out): ?array {
    $values = array_fill(0, count($job["inputs"]), TOO_LONG);
    $from = 0;
    $late = 0;
    $any = false;
    while ($from < count($values) && $late < $job["patience"]) {
        file_put_contents("told", "");
        $process = pcntl_fork();
        if ($process === 0) {
            child($job, $source, $from, $left_out);
            exit(0);
        }
        $slow = waited($process, $job["milliseconds"] / 1000, $status);
        $before = $from;
        foreach (file("told") as $line) {
            [$at, $value] = json_decode($line, true);
            if ($at < 0) return array_fill(0, count($values), TOO_LONG);
            $any = true;
            $values[$at] = $value;
            $late += $value === TOO_LONG;
            $from = $at + 1;
        }
        if ($slow) {
            while (isset($left_out[$from])) $from++;
            $late++;
            $any = true;
            $from++;
        } elseif (!pcntl_wifexited($status)) {
            // A signal came during the call that told nothing: a stack that overflowed.
            while (isset($left_out[$from])) $from++;
            if ($from < count($values)) $values[$from] = "signal | ";
            $any = true;
            $from++;
        } elseif ($from === $before) {
            break;
        }
    }
    return $any || count($left_out) === count($values) ? $values : null;
}

$job = json_decode(file_get_contents("job.json"), true);
// Inputs on which the first source takes too long tell nothing of the others.
$untold = [];
foreach ($job["sources"] as $place => $source) {
    $values = version($job, $source, $untold);
    if ($values === null) continue;
    if ($place === 0) $untold = array_filter($values, fn($value) => $value === TOO_LONG);
    fwrite(STDOUT, json_encode([$place, $values], JSON_INVALID_UTF8_SUBSTITUTE) . "\n");
}
