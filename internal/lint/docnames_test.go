package lint

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	nameSpan = regexp.MustCompile(`^([a-z]\w*)((?:\.[A-Z]\w*)+)$`)
	flagSpan = regexp.MustCompile(`^--([a-z][a-z0-9-]*)`)
	figure   = regexp.MustCompile("`(\\w+\\.\\w+)`(?: \\(| \\| )([0-9][0-9,]*)(?: (KiB|MiB|GiB))?[) |]")
)

// names are what the module declares, as documents may name it.
type names struct {
	packages map[string]bool           // by their last elements
	declared map[string]bool           // pkg.Name, and pkg.Type.Member of structs and interfaces
	consts   map[string]constant.Value // pkg.name, of those that are figures by themselves
	strings  map[string]bool           // all literals, flags among them
}

// TestDocNames: README.md and docs are true to the source in every exported name of a
// package of the module, every flag, and every figure that is given with its constant.
func TestDocNames(t *testing.T) {
	known := readNames(t)
	for _, name := range documents(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, fault := range known.faults(line) {
				t.Errorf("%s:%d: %s", strings.TrimPrefix(filepath.ToSlash(name), root+"/"), i+1, fault)
			}
		}
	}
}

func TestDocNamesAreFound(t *testing.T) {
	known := &names{
		packages: map[string]bool{"nbd": true},
		declared: map[string]bool{"nbd.Limits": true, "nbd.Limits.Clients": true, "nbd.most": true},
		consts:   map[string]constant.Value{"nbd.most": constant.MakeInt64(4096), "nbd.bytes": constant.MakeInt64(64 << 20)},
		strings:  map[string]bool{"data": true},
	}
	for line, faults := range map[string]int{
		"`nbd.Limits` and `nbd.Limits.Clients`, `os.File`, `other.Thing`":              0,
		"`nbd.Gone`, `nbd.Limits.Gone`":                                                2,
		"`--data DIR`, `qemu-img --flag`, `--dat`":                                     1,
		"`nbd.most` (4,096) and | `nbd.most` | 4096 |, | `nbd.bytes` | 64 MiB of them": 0,
		"`nbd.most` (4097), and `nbd.bytes` (64 KiB)":                                  2,
	} {
		if got := known.faults(line); len(got) != faults {
			t.Errorf("%s: %q, not %d faults", line, got, faults)
		}
	}
}

// foreign are flags of other programs, where a document has such a flag at the
// beginning of a code span.
var foreign = map[string]bool{}

func (k *names) faults(line string) (faults []string) {
	for _, m := range span.FindAllStringSubmatch(line, -1) {
		if n := nameSpan.FindStringSubmatch(m[1]); n != nil && k.packages[n[1]] && !k.declared[m[1]] {
			faults = append(faults, "no "+m[1]+" in the module")
		}
		if f := flagSpan.FindStringSubmatch(m[1]); f != nil && !k.strings[f[1]] && !foreign[f[1]] {
			faults = append(faults, "no flag --"+f[1])
		}
	}
	for _, m := range figure.FindAllStringSubmatch(line, -1) {
		is, ok := k.consts[m[1]]
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.ReplaceAll(m[2], ",", ""), 10, 64)
		n <<= map[string]int{"KiB": 10, "MiB": 20, "GiB": 30}[m[3]]
		if err != nil || !constant.Compare(is, token.EQL, constant.MakeInt64(n)) {
			faults = append(faults, m[1]+" is "+is.String()+", not "+strings.TrimSpace(m[2]+" "+m[3]))
		}
	}
	return faults
}

func readNames(t *testing.T) *names {
	t.Helper()
	k := &names{map[string]bool{}, map[string]bool{}, map[string]constant.Value{}, map[string]bool{}}
	fset := token.NewFileSet()
	for _, s := range sources(t) {
		f, err := parser.ParseFile(fset, s.path, s.text, 0)
		if err != nil {
			t.Fatal(err)
		}
		pkg := path.Base(s.pkg)
		k.packages[pkg] = true
		for _, d := range f.Decls {
			k.add(fset, pkg, d)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if v, err := strconv.Unquote(l.Value); err == nil {
					k.strings[strings.TrimPrefix(v, "--")] = true
				}
			}
			return true
		})
	}
	return k
}

func (k *names) add(fset *token.FileSet, pkg string, d ast.Decl) {
	if f, ok := d.(*ast.FuncDecl); ok {
		name := f.Name.Name
		if f.Recv != nil {
			name = receiver(f.Recv.List[0].Type) + "." + name
		}
		k.declared[pkg+"."+name] = true
	}
	g, ok := d.(*ast.GenDecl)
	if !ok {
		return
	}
	for _, s := range g.Specs {
		switch s := s.(type) {
		case *ast.ValueSpec:
			for i, n := range s.Names {
				k.declared[pkg+"."+n.Name] = true
				if g.Tok == token.CONST && i < len(s.Values) {
					if v, err := types.Eval(fset, nil, token.NoPos, types.ExprString(s.Values[i])); err == nil && v.Value != nil && v.Value.Kind() == constant.Int {
						k.consts[pkg+"."+n.Name] = v.Value
					}
				}
			}
		case *ast.TypeSpec:
			name := pkg + "." + s.Name.Name
			k.declared[name] = true
			var members *ast.FieldList
			switch typ := s.Type.(type) {
			case *ast.StructType:
				members = typ.Fields
			case *ast.InterfaceType:
				members = typ.Methods
			default:
				continue
			}
			for _, m := range members.List {
				for _, n := range m.Names {
					k.declared[name+"."+n.Name] = true
				}
			}
		}
	}
}

// receiver is the name of a receiver's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
