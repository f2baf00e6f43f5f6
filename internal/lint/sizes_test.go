package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strings"
	"testing"
)

// Limits: what fits a head, a screen, and a sitting. Tests, and packages that only
// tests import, may be longer.
const (
	mostMethods   = 45 // of a type
	mostLines     = 60 // of a function
	mostFileLines = 450
)

// TestSizes: no type of the product has more methods than a reader can keep in mind,
// no function is longer than a screen, no file longer than is read at a sitting.
func TestSizes(t *testing.T) {
	methods := map[string]int{}
	over := map[string]int{}
	note := func(what string, size, most int) {
		if size > most {
			over[what] = size
		}
	}
	for _, s := range sources(t) {
		if s.test || strings.HasSuffix(s.pkg, "test") || strings.HasPrefix(s.pkg, "scripts") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, s.path, s.text, 0)
		if err != nil {
			t.Fatal(err)
		}
		note(s.path, fset.File(f.Pos()).LineCount()-1, mostFileLines)
		for _, d := range f.Decls {
			d, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := path.Base(s.pkg) + "."
			if d.Recv != nil {
				typ := receiver(d.Recv.List[0].Type)
				methods[s.pkg+"."+typ]++
				name += typ + "."
			}
			note(name+d.Name.Name+"()", fset.Position(d.End()).Line-fset.Position(d.Pos()).Line+1, mostLines)
		}
	}
	for typ, n := range methods {
		note(typ, n, mostMethods)
	}
	for what, size := range over {
		t.Errorf("%s is too large: %d", what, size)
	}
}
