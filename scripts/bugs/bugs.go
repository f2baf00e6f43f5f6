// Command bugs shows that tests catch what they are for. It makes one deliberate bug
// after another, runs the tests that are to catch it, and expects them to fail.
//
//	go run ./scripts/bugs                    all of them
//	go run ./scripts/bugs stale-read torn    those whose names contain one of these
//	go run ./scripts/bugs -table             only prints the table of docs/deliberate-bugs.md
//
// A bug is a patch, arakoon/sim/testdata/bugs/NAME.patch. Before its diff are two lines:
//
//	Bug: what is wrong with the product then
//	Test: PACKAGE TEST [FLAGS OF THE TEST]
//
// The tree stays as it is: `go test` is given the changed files as an overlay.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	bugsDir = "arakoon/sim/testdata/bugs"
	tableIn = "docs/deliberate-bugs.md"
	// testTime is how long a test may run, and the build before it.
	testTime = 3 * time.Minute
)

// bug is a deliberate mistake.
type bug struct {
	name  string
	what  string
	test  []string // package, test, flags
	patch patch
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bugs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	onlyTable := flag.Bool("table", false, "print the table of "+tableIn)
	verbose := flag.Bool("v", false, "print what the tests print")
	flag.Parse()
	bugs, err := readBugs(".")
	if err != nil {
		return err
	}
	if *onlyTable {
		fmt.Print(table(bugs))
		return nil
	}
	missed, count := 0, 0
	for _, b := range bugs {
		if !b.wanted(flag.Args()) {
			continue
		}
		count++
		began := time.Now()
		out, caught, err := b.try(ctx, ".")
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		verdict := "caught"
		if !caught {
			verdict = "NOT CAUGHT"
			missed++
		}
		fmt.Printf("%-34s %-10s %5.1fs  %s\n", b.name, verdict, time.Since(began).Seconds(), strings.Join(b.test[:2], " "))
		if *verbose {
			fmt.Println(out)
		}
	}
	if missed > 0 || count == 0 {
		return fmt.Errorf("%d of %d bugs are not caught", missed, count)
	}
	fmt.Printf("all of %d bugs are caught\n", count)
	return nil
}

func (b bug) wanted(names []string) bool {
	return len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return strings.Contains(b.name, n) })
}

var (
	whatLine = regexp.MustCompile(`(?m)^Bug: (\S.*)$`)
	testLine = regexp.MustCompile(`(?m)^Test: (\S.*)$`)
)

// readBugs reads all bugs of a tree, in the order of their names.
func readBugs(root string) (bugs []bug, err error) {
	names, err := filepath.Glob(filepath.Join(root, bugsDir, "*.patch"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		b := bug{name: strings.TrimSuffix(filepath.Base(name), ".patch")}
		if b.patch, err = parsePatch(string(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		what, test := whatLine.FindStringSubmatch(b.patch.head), testLine.FindStringSubmatch(b.patch.head)
		if what == nil || test == nil || len(strings.Fields(test[1])) < 2 {
			return nil, fmt.Errorf("%s: before the diff must be the lines \"Bug: WHAT\" and \"Test: PACKAGE TEST [FLAGS]\"", name)
		}
		b.what, b.test = what[1], strings.Fields(test[1])
		bugs = append(bugs, b)
	}
	return bugs, nil
}

// change returns the changed files of a tree, by name.
func (b bug) change(root string) (map[string]string, error) {
	changed := map[string]string{}
	for _, f := range b.patch.files {
		text, err := os.ReadFile(filepath.Join(root, f.name))
		if err == nil {
			changed[f.name], err = f.apply(string(text))
		}
		if err != nil {
			return nil, err
		}
	}
	return changed, nil
}

// try makes the bug and runs its test. A tree that does not build is an error: a bug that
// no longer compiles would look as if it were caught.
func (b bug) try(ctx context.Context, root string) (out string, caught bool, err error) {
	dir, err := os.MkdirTemp("", "bugs-")
	if err != nil {
		return "", false, err
	}
	defer os.RemoveAll(dir)
	overlay, err := b.overlay(root, dir)
	if err != nil {
		return "", false, err
	}
	ctx, cancel := context.WithTimeout(ctx, testTime+time.Minute)
	defer cancel()
	binary := filepath.Join(dir, "test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "-overlay", overlay, b.test[0])
	build.Dir = root
	if text, err := build.CombinedOutput(); err != nil {
		return "", false, fmt.Errorf("the tree with the bug does not build: %w\n%s", err, text)
	}
	args := append([]string{"-test.run", "^" + b.test[1] + "$", "-test.count=1", "-test.timeout", testTime.String()}, b.test[2:]...)
	test := exec.CommandContext(ctx, binary, args...)
	test.Dir = filepath.Join(root, b.test[0])
	text, err := test.CombinedOutput()
	var failed *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", false, ctx.Err()
	case err == nil && strings.Contains(string(text), "no tests to run"):
		return "", false, fmt.Errorf("%s has no test %s", b.test[0], b.test[1])
	case err != nil && !errors.As(err, &failed):
		return "", false, err
	}
	return string(text), err != nil, nil
}

// overlay writes what `go test -overlay` takes, and returns its name.
func (b bug) overlay(root, dir string) (string, error) {
	changed, err := b.change(root)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, text := range changed {
		abs, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			return "", err
		}
		replace[abs] = filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(replace[abs], []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, text, 0o600)
}

// table is that of the page on deliberate bugs.
func table(bugs []bug) string {
	out := "| Bug | What is wrong then | Caught by |\n|---|---|---|\n"
	for _, b := range bugs {
		out += fmt.Sprintf("| `%s` | %s | `%s` in `%s` |\n", b.name, b.what, b.test[1], strings.TrimPrefix(b.test[0], "./"))
	}
	return out
}
