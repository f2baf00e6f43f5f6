package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// Every patch applies to the tree as it is, and names a test that is there.
func TestBugsAreCurrent(t *testing.T) {
	bugs, err := readBugs(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(bugs) < 20 {
		t.Errorf("there are %d bugs, and 20 were promised", len(bugs))
	}
	for _, b := range bugs {
		if _, err := b.change(root); err != nil {
			t.Errorf("%s: %v", b.name, err)
		}
		files, err := filepath.Glob(filepath.Join(root, b.test[0], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(text), "func "+b.test[1]+"(t *testing.T)")
		}
		if !found {
			t.Errorf("%s: %s has no test %s", b.name, b.test[0], b.test[1])
		}
	}
}

// The page has the table that is drawn of the patches.
func TestTable(t *testing.T) {
	bugs, err := readBugs(root)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, tableIn))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), table(bugs)) {
		t.Errorf("the table of %s is not that of `go run ./scripts/bugs -table`", tableIn)
	}
}

const twoHunks = `Bug: b
Test: ./p TestX
diff --git a/f.go b/f.go
index 1..2 100644
--- a/f.go
+++ b/f.go
@@ -1,2 +1,2 @@
 one
-two
+2
@@ -9,2 +9,3 @@
 nine
+nine and a half

 ten
`

func TestPatch(t *testing.T) {
	p, err := parsePatch(twoHunks)
	if err != nil || len(p.files) != 1 || len(p.files[0].hunks) != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	const before = "zero\none\ntwo\nthree\nnine\n\nten\n"
	after, err := p.files[0].apply(before)
	if err != nil || after != "zero\none\n2\nthree\nnine\nnine and a half\n\nten\n" {
		t.Fatalf("%q, %v", after, err)
	}
	for _, other := range []string{"", "one\nthree\n", "one\ntwo\none\ntwo\nnine\n\nten\n", "xone\ntwo\nnine\n\nten\n"} {
		if _, err := p.files[0].apply(other); err == nil {
			t.Errorf("applied to %q", other)
		}
	}
	for _, bad := range []string{"", "Bug: b\n", "--- a/f\n+++ b/g\n", "--- a/f\n+++ b/f\n", "--- a/f\n+++ b/f\n@@ -1 +1 @@\n*x\n"} {
		if _, err := parsePatch(bad); err == nil {
			t.Errorf("read %q", bad)
		}
	}
}

// A bug that is there is caught, one that changes nothing is not, and one that does not
// compile is an error.
func TestTry(t *testing.T) {
	tree := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":      "module m\n\ngo 1.26\n",
		"p/p.go":      "package p\n\nfunc two() int {\n\treturn 2\n}\n",
		"p/p_test.go": "package p\n\nimport \"testing\"\n\nfunc TestTwo(t *testing.T) {\n\tif two() != 2 {\n\t\tt.Fatal()\n\t}\n}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		line, test string
		caught, ok bool
	}{
		{"return 3", "TestTwo", true, true},
		{"return 1 + 1", "TestTwo", false, true},
		{"return", "TestTwo", false, false},
		{"return 3", "TestThree", false, false},
	} {
		p, err := parsePatch("--- a/p/p.go\n+++ b/p/p.go\n@@ -3,2 +3,2 @@\n-\treturn 2\n+\t" + c.line + "\n")
		if err != nil {
			t.Fatal(err)
		}
		_, caught, err := bug{name: "b", test: []string{"./p", c.test}, patch: p}.try(t.Context(), tree)
		if caught != c.caught || (err == nil) != c.ok {
			t.Errorf("%q, %s: caught %v, %v", c.line, c.test, caught, err)
		}
	}
}
