// Command testreport reads the output of `go test -json` and prints what a person wants
// to know: a line for each package, the whole output of each test that failed, and at
// the end each test that was skipped, with the reason. It exits with 1 if anything
// failed or nothing ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build
	Test       string
	Elapsed    float64
	Output     string
}

// name of a test within all packages.
type name struct{ pkg, test string }

type report struct {
	out      io.Writer
	output   map[name][]string // of what has not ended yet
	left     []string          // left out, with the reason
	passed   int
	failed   int // tests
	broken   int // packages that failed or do not build
	packages int
}

func main() { os.Exit(run(os.Stdin, os.Stdout)) }

func run(in io.Reader, out io.Writer) int {
	r := &report{out: out, output: map[name][]string{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				fmt.Fprintf(out, "%s", line) // of the go command itself
			} else {
				r.add(e)
			}
		}
		if err != nil {
			break
		}
	}
	return r.finish()
}

func (r *report) add(e event) {
	n := name{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.output[n] = append(r.output[n], e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "build-fail":
		r.broken++
	case "pass":
		if e.Test != "" {
			r.passed++
		} else {
			r.line("ok", e)
		}
		delete(r.output, n)
	case "skip":
		if e.Test != "" {
			r.left = append(r.left, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(r.output[n])))
		}
		delete(r.output, n)
	case "fail":
		if e.Test != "" {
			r.failed++
		} else {
			r.broken++
			r.line("FAIL", e)
			r.unfinished(e.Package)
		}
		for _, text := range r.output[n] {
			if !strings.HasPrefix(text, "=== ") {
				fmt.Fprint(r.out, text)
			}
		}
		delete(r.output, n)
	}
}

// unfinished prints the output of tests that a panic or a time-out ended with
// their package: they never get a verdict of their own.
func (r *report) unfinished(pkg string) {
	for n, lines := range r.output {
		if n.pkg != pkg || n.test == "" {
			continue
		}
		fmt.Fprintf(r.out, "did not end: %s\n", n.test)
		for _, text := range lines {
			fmt.Fprint(r.out, text)
		}
		delete(r.output, n)
	}
}

func (r *report) line(verdict string, e event) {
	r.packages++
	fmt.Fprintf(r.out, "%-4s %s %.1fs\n", verdict, e.Package, e.Elapsed)
}

// reason picks what t.Skip was given out of a test's output.
func reason(output []string) string {
	var said []string
	for _, text := range output {
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "=== ") || strings.HasPrefix(text, "--- ") {
			continue
		}
		// file_test.go:12: reason
		if file, rest, ok := strings.Cut(text, ": "); ok && strings.Contains(file, ".go:") {
			text = rest
		}
		said = append(said, text)
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, "; ")
}

func (r *report) finish() int {
	if len(r.left) > 0 {
		slices.Sort(r.left)
		fmt.Fprintf(r.out, "\nLeft out:\n  %s\n", strings.Join(r.left, "\n  "))
	}
	fmt.Fprintf(r.out, "\n%d tests passed, %d failed, %d left out, in %d packages\n", r.passed, r.failed, len(r.left), r.packages)
	if r.failed+r.broken > 0 || r.packages == 0 {
		return 1
	}
	return 0
}
