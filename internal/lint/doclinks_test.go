package lint

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	goFile   = regexp.MustCompile(`[A-Za-z0-9_.:/-]*/[A-Za-z0-9_.-]+\.go\b`)
	span     = regexp.MustCompile("`([^`\n]+)`")
	funcSpan = regexp.MustCompile(`^(?:(\w+)\.)?(\w+)\(\)$`)
	testSpan = regexp.MustCompile(`^(Test|Fuzz|Benchmark)[A-Z]\w*$`)
	metric   = regexp.MustCompile(`\b(nbdDesc|desc)\("(\w+)"`)
	funcDecl = regexp.MustCompile(`(?m)^func (?:\((?:\w+ )?\*?(\w+)[^)]*\) )?(\w+)[(\[]`)
)

// documents are the pages whose pointers into the module must hold.
func documents(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	return append(names, filepath.Join(root, "README.md"))
}

// TestDocLinks: in README.md and docs, every relative link leads to a file and
// to a heading in it, every path of a Go file exists, every function written
// as `Type.method()`, `package.Function()` or `function()` is declared, and so
// is every test that is named.
func TestDocLinks(t *testing.T) {
	known := declared(t)
	for _, name := range documents(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, fault := range pointerFaults(name, line, known) {
				t.Errorf("%s:%d: %s", strings.TrimPrefix(filepath.ToSlash(name), root+"/"), i+1, fault)
			}
		}
	}
}

// pointerFaults returns the pointers in a line of a document that lead nowhere.
func pointerFaults(document, line string, known map[string]bool) (faults []string) {
	for _, m := range link.FindAllStringSubmatch(line, -1) {
		if fault := linkFault(document, m[1]); fault != "" {
			faults = append(faults, fault)
		}
	}
	for _, file := range goFile.FindAllString(line, -1) {
		if strings.Contains(file, "://") {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			faults = append(faults, fmt.Sprintf("no file %s in the module", file))
		}
	}
	for _, m := range span.FindAllStringSubmatch(line, -1) {
		if f := funcSpan.FindStringSubmatch(m[1]); f != nil && !known[strings.TrimSuffix(m[1], "()")] {
			faults = append(faults, fmt.Sprintf("no function %s in the module", m[1]))
		} else if testSpan.MatchString(m[1]) && !known[m[1]] {
			faults = append(faults, fmt.Sprintf("no test %s in the module", m[1]))
		}
	}
	return faults
}

// linkFault says what is wrong with a link's target, "" if nothing.
func linkFault(document, target string) string {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return ""
	}
	file, heading, _ := strings.Cut(target, "#")
	if file == "" {
		file = filepath.Base(document)
	}
	name := filepath.Join(filepath.Dir(document), filepath.FromSlash(file))
	text, err := os.ReadFile(name)
	if err != nil {
		if info, serr := os.Stat(name); serr == nil && info.IsDir() {
			return ""
		}
		return fmt.Sprintf("dead link %s: no file %s", target, file)
	}
	if heading != "" && !headings(string(text))[heading] {
		return fmt.Sprintf("dead link %s: %s has no such heading", target, file)
	}
	return ""
}

// headings returns the anchors of a page's headings, as GitHub makes them.
func headings(text string) map[string]bool {
	anchors := map[string]bool{}
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		title := strings.TrimLeft(line, "#")
		if fenced || title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		anchors[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(title))] = true
	}
	return anchors
}

// declared returns the module's functions under the names that documents may
// give them: "f", "pkg.f", and for a method "T.m".
func declared(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	for _, s := range sources(t) {
		for _, m := range funcDecl.FindAllStringSubmatch(s.text, -1) {
			if receiver, name := m[1], m[2]; receiver != "" {
				known[receiver+"."+name] = true
			} else {
				known[name], known[path.Base(s.pkg)+"."+name] = true, true
			}
		}
	}
	return known
}

// TestMetricsAreDocumented: docs/operations.md lists every metric.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, m := range metric.FindAllStringSubmatch(s.text, -1) {
			name := map[string]string{"desc": "ovs_", "nbdDesc": "ovs_nbd_"}[m[1]] + m[2]
			if !regexp.MustCompile("`" + name + "[`{]").Match(page) {
				t.Errorf("%s: metric %s is not in docs/operations.md", s.path, name)
			}
		}
	}
}

// The check itself: it finds dead pointers, and accepts the others.
func TestPointerFaults(t *testing.T) {
	known := map[string]bool{"Log.commitRound": true, "pace": true, "TestThere": true}
	document := filepath.Join(root, "README.md")
	for line, faults := range map[string]int{
		"[a](docs/architecture.md), [b](docs/architecture.md#locks), [c](https://example.com/x.go)": 0,
		"[a](docs/nowhere.md)":                              1,
		"[a](docs/architecture.md#nowhere)":                 1,
		"`internal/lint/doc.go` and `internal/lint/no.go`":  1,
		"`Log.commitRound()`, `pace()`, `pace`, `make run`": 0,
		"`Log.commitRounds()` and `paces()`":                2,
		"`TestThere` and `TestNotThere`":                    1,
	} {
		if got := pointerFaults(document, line, known); len(got) != faults {
			t.Errorf("%s: %d faults, want %d: %q", line, len(got), faults, got)
		}
	}
}
