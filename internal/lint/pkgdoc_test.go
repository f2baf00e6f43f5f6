package lint

import (
	"slices"
	"strings"
	"testing"
)

func TestEveryPackageHasAComment(t *testing.T) {
	described := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		if s.file.Doc == nil {
			described[s.pkg] = described[s.pkg]
			continue
		}
		described[s.pkg] = true
		name := s.file.Name.Name
		want := "Package " + name + " "
		if name == "main" {
			continue // by custom it begins with the command's name
		}
		if !strings.HasPrefix(s.file.Doc.Text(), want) {
			t.Errorf("%s: the package comment does not begin with %q", s.path, want)
		}
	}
	var packages []string
	for pkg := range described {
		packages = append(packages, pkg)
	}
	slices.Sort(packages)
	for _, pkg := range packages {
		if !described[pkg] {
			t.Errorf("%s: no file has a package comment; say what the noun is that the package stands for", pkg)
		}
	}
}
