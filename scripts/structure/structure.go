// Package main draws which parts of the program import which, from what the Go
// command says, into docs/structure.md:
//
//	go run ./scripts/structure
//
// An arrow that points up is an error, and so is one that closes a circle.
package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const module = "openvstorage/"

// bands are the parts of the program from top to bottom. A package imports packages of its own part or of
// a lower band. A package is in the first band that names it or a directory above it; one that no band
// names is in the last.
var bands = []struct {
	name  string
	parts []string
}{
	{"program", []string{"cmd"}},
	{"what runs on a host", []string{"host"}},
	{"tools for files", []string{"internal/image", "internal/inspect"}},
	{"management", []string{"internal/control"}},
	{"front ends", []string{"nbd", "fusefs", "blockdev"}},
	{"a vDisk's life", []string{"volumedriver"}},
	{"local logs and maps", []string{"writebuffer", "metadata"}},
	{"object store", []string{"alba"}},
	{"replicated keys", []string{"arakoon"}},
	{"contracts", []string{"backend", "device"}},
	{"formats over formats", []string{"tlog"}},
	{"formats", []string{"sco"}},
	{"below all", nil},
}

// never says what a part must not reach, by whatever way.
var never = map[string][]string{
	"arakoon": {"volumedriver", "fusefs", "host", "nbd", "alba", "cmd"},
	"alba":    {"volumedriver", "fusefs", "host", "nbd", "cmd"},
	"backend": {"volumedriver", "alba", "arakoon"},
}

func main() {
	if err := write(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write() error {
	root, err := output("go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	imports, err := load()
	if err != nil {
		return err
	}
	page, err := draw(imports)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(strings.TrimSpace(root), "docs", "structure.md"), []byte(page), 0o644)
}

// load returns what each package of the program imports of this module.
func load() (map[string][]string, error) {
	out, err := output("go", "list", "-deps", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"cmd/ovs")
	if err != nil {
		return nil, err
	}
	imports := map[string][]string{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		from, own := strings.CutPrefix(fields[0], module)
		if !own {
			continue
		}
		imports[from] = nil
		for _, f := range fields[1:] {
			if to, own := strings.CutPrefix(f, module); own {
				imports[from] = append(imports[from], to)
			}
		}
	}
	return imports, nil
}

func output(name string, args ...string) (string, error) {
	var stderr bytes.Buffer
	c := exec.Command(name, args...)
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// below reports whether a package is of a part or below it.
func below(pkg, part string) bool { return pkg == part || strings.HasPrefix(pkg, part+"/") }

// partOf names the part that a package is drawn as, and its band.
func partOf(pkg string) (part string, band int) {
	for i, b := range bands {
		for _, p := range b.parts {
			if below(pkg, p) {
				return p, i
			}
		}
	}
	top, rest, _ := strings.Cut(pkg, "/")
	if next, _, _ := strings.Cut(rest, "/"); top == "internal" && next != "" {
		top += "/" + next
	}
	return top, len(bands) - 1
}

// draw makes the page, or says which arrows are wrong.
func draw(imports map[string][]string) (string, error) {
	arrows := map[string]map[string]bool{} // between parts
	var faults []string
	for from, list := range imports {
		part, band := partOf(from)
		if arrows[part] == nil {
			arrows[part] = map[string]bool{}
		}
		for _, to := range list {
			target, low := partOf(to)
			if target == part {
				continue
			}
			arrows[part][target] = true
			if low < band || low == band && low != len(bands)-1 {
				faults = append(faults, fmt.Sprintf("%s imports %s, which is not below it", from, to))
			}
		}
	}
	for part, forbidden := range never {
		for reached := range reach(part, arrows) {
			if slices.Contains(forbidden, reached) {
				faults = append(faults, fmt.Sprintf("%s reaches %s", part, reached))
			}
		}
	}
	for part := range arrows {
		if reach(part, arrows)[part] {
			faults = append(faults, fmt.Sprintf("%s is in a circle of imports", part))
		}
	}
	if len(faults) > 0 {
		slices.Sort(faults)
		return "", fmt.Errorf("the structure is broken:\n%s", strings.Join(faults, "\n"))
	}
	return page(imports, arrows), nil
}

// reach returns what a part imports, by whatever way.
func reach(part string, arrows map[string]map[string]bool) map[string]bool {
	seen := map[string]bool{}
	var walk func(string)
	walk = func(p string) {
		for to := range arrows[p] {
			if !seen[to] {
				seen[to] = true
				walk(to)
			}
		}
	}
	walk(part)
	return seen
}

const head = `# Structure

Made by ` + "`go run ./scripts/structure`" + ` from what the packages of the program import; a test holds that it is current, that no
arrow points up and that there is no circle. Each part is a directory with all below it, and the number is that of its
packages. Arrows go to the parts that it imports, but for those below all, which everybody may. What a package may
import is in ` + "`internal/lint/deps_test.go`" + `; what each is for, in [architecture.md](architecture.md#packages-and-what-each-owns).

`

// page writes the figure.
func page(imports map[string][]string, arrows map[string]map[string]bool) string {
	packages := map[string]int{}
	for pkg := range imports {
		part, _ := partOf(pkg)
		packages[part]++
	}
	var b strings.Builder
	b.WriteString(head + "```\n")
	for i, band := range bands {
		var parts []string
		for part := range packages {
			if _, at := partOf(part); at == i {
				parts = append(parts, part)
			}
		}
		if len(parts) == 0 {
			continue
		}
		slices.Sort(parts)
		if b.Len() > len(head)+4 {
			b.WriteString("        |\n        v\n")
		}
		fmt.Fprintf(&b, "%s\n", strings.ToUpper(band.name))
		for _, part := range parts {
			line := fmt.Sprintf("    %-22s %2d", part, packages[part])
			if targets := targets(arrows[part]); len(targets) > 0 {
				line += "  -> " + strings.Join(targets, ", ")
			}
			b.WriteString(line + "\n")
		}
	}
	b.WriteString("```\n")
	return b.String()
}

// targets are the parts that are drawn as an arrow, from top to bottom.
func targets(to map[string]bool) []string {
	list := slices.DeleteFunc(slices.Collect(maps.Keys(to)), func(part string) bool {
		_, band := partOf(part)
		return band == len(bands)-1
	})
	slices.SortFunc(list, func(a, b string) int {
		_, x := partOf(a)
		_, y := partOf(b)
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
	})
	return list
}
