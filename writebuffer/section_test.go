package writebuffer

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var locked = regexp.MustCompile(`(mu|mutex|lock) is held`)

// The append section is reached by its entrance only, so that whoever has it has its
// lock; and a method that needs another lock says so by its name.
func TestLocksAreSaid(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	entered := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			of := receiverName(fn)
			if doc := strings.Join(strings.Fields(fn.Doc.Text()), " "); locked.MatchString(doc) && !strings.HasSuffix(fn.Name.Name, "Locked") {
				t.Errorf("%s: %s.%s needs a lock, and its name does not say so", name, of, fn.Name.Name)
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "inside" {
					if entered++; of != "entrance" {
						t.Errorf("%s: %s.%s goes around the entrance of the append section", name, of, fn.Name.Name)
					}
				}
				return true
			})
		}
	}
	if entered == 0 {
		t.Error("the entrance is not found: the test looks for nothing")
	}
}

func receiverName(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	typ := fn.Recv.List[0].Type
	if p, ok := typ.(*ast.StarExpr); ok {
		typ = p.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
