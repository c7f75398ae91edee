// Child process: make the calls that the file `calls` lists and tell of each in the file `told`:
// place, input, bytes printed so far, the outcome.
package main

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func used_() time.Duration {
	var all syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &all)
	return time.Duration(all.Utime.Nano() + all.Stime.Nano())
}

func shown_(all []reflect.Value) string {
	items := make([]string, len(all))
	for at, each := range all {
		items[at] = fmt.Sprintf("%+v", each.Interface())
		if each.Kind() == reflect.String {
			items[at] = fmt.Sprintf("%q", each.Interface())
		}
	}
	return strings.Join(items, ", ")
}

func outcome_(function any, input int) (said string) {
	defer func() {
		if problem := recover(); problem != nil {
			said = fmt.Sprintf("%T", problem)
		}
	}()
	var given []reflect.Value
	for _, each := range input_(input) {
		given = append(given, reflect.ValueOf(each))
	}
	value := shown_(reflect.ValueOf(function).Call(given))
	return value + " | " + shown_(given)
}

func main() {
	milliseconds, _ := strconv.Atoi(os.Args[1])
	limit := time.Duration(milliseconds) * time.Millisecond
	lines, _ := os.ReadFile("calls")
	told, _ := os.OpenFile("told", os.O_APPEND|os.O_WRONLY, 0)
	for _, line := range strings.Split(strings.TrimSpace(string(lines)), "\n") {
		var place, input int
		fmt.Sscan(line, &place, &input)
		done := make(chan string, 1)
		before, began := used_(), time.Now()
		go func() { done <- outcome_(functions_[place], input) }()
		said := ""
		for waiting := true; waiting; {
			select {
			case said = <-done:
				waiting = false
			case <-time.After(10 * time.Millisecond):
				if used_()-before > limit || time.Since(began) > 50*limit {
					os.Exit(97)
				}
			}
		}
		printed, _ := os.Stat("printed")
		said = strings.NewReplacer("\n", "~", "\r", "~", "\x00", "~").Replace(said)
		if len(said) > 4000 {
			said = said[:4000]
		}
		fmt.Fprintf(told, "%s %d %s\n", line, printed.Size(), said)
	}
}
