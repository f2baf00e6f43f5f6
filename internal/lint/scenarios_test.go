package lint

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// scenarioTest is how a page names a test and its package.
var scenarioTest = regexp.MustCompile("`(Test\\w+)` in `([\\w/]+)`")

// scenarios are the rows of a page's tables that are not as they should be: each names tests
// that are there, or begins its second column with a dash and says why there is none.
func scenarios(page string, there func(name, pkg string) bool) (rows int, faults []string) {
	for i, line := range strings.Split(page, "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if !strings.HasPrefix(line, "| ") || cells[len(cells)-1] == "Test" {
			continue
		}
		rows++
		named := scenarioTest.FindAllStringSubmatch(line, -1)
		if reason, none := strings.CutPrefix(cells[len(cells)-1], "– "); len(cells) != 2 || len(named) == 0 && (!none || len(reason) < 10) {
			faults = append(faults, fmt.Sprintf("line %d names no test and gives no reason", i+1))
		}
		for _, m := range named {
			if !there(m[1], m[2]) {
				faults = append(faults, fmt.Sprintf("line %d: %s has no test %s", i+1, m[2], m[1]))
			}
		}
	}
	return rows, faults
}

// Every scenario of the page has its test, or a reason why there is none.
func TestScenarios(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "scenarios.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows, faults := scenarios(string(page), func(name, pkg string) bool {
		files, _ := filepath.Glob(filepath.Join(root, filepath.FromSlash(pkg), "*_test.go"))
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), "func "+name+"(t *testing.T)") {
				return true
			}
		}
		return false
	})
	for _, fault := range faults {
		t.Errorf("docs/scenarios.md: %s", fault)
	}
	if rows < 50 {
		t.Errorf("%d rows were found", rows)
	}
}

func TestScenariosAreFound(t *testing.T) {
	page := "| Scenario | Test |\n|---|---|\n| good | `TestA` in `p` |\n| none | – nobody needs it |\n| gone | `TestB` in `p` |\n| bare | soon |\n| no reason | – |\n"
	rows, faults := scenarios(page, func(name, pkg string) bool { return name == "TestA" && pkg == "p" })
	if rows != 5 || len(faults) != 3 {
		t.Errorf("%d rows, %q", rows, faults)
	}
}
