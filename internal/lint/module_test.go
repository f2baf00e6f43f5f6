package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "openvstorage"
	root   = "../.." // the module's directory, seen from this one
)

// source is one Go file of the module.
type source struct {
	path string // from the module's directory
	pkg  string // its directory; "" for the module's own
	test bool
	text string
	file *ast.File // package clause, comments before it, imports
}

// sources parses every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if name != root && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, name, text, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		pkg := path.Dir(rel)
		if pkg == "." {
			pkg = ""
		}
		all = append(all, source{
			path: rel,
			pkg:  pkg,
			test: strings.HasSuffix(base, "_test.go"),
			text: string(text),
			file: file,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// imports returns the packages of this module that a file imports.
func (s source) imports() []string {
	var own []string
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has seen to it
		}
		if p == module {
			own = append(own, "")
		} else if rest, ok := strings.CutPrefix(p, module+"/"); ok {
			own = append(own, rest)
		}
	}
	return own
}
