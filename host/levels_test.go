package host

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/arakoon/state"
)

// TestLevelsOfThePage: docs/groups.md says which steps and functions each level brings, and how
// new an argument each function reads. Whoever adds a step, a version of a function or one of an
// argument that members of the release before do not know gives it a level of its own: the
// page is what releases before have, and its rows never change.
func TestLevelsOfThePage(t *testing.T) {
	page, err := os.ReadFile("../docs/groups.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for level := uint32(1); level <= state.LevelZones; level++ {
		want = append(want, fmt.Sprintf("| %d | %s |", level, strings.Join(state.StepsOf(level), ", ")))
	}
	for group, list := range map[string][]userfn.Function{"abm": abm.Functions(), "nsm": nsm.Functions()} {
		rows := map[string][]string{}
		for _, f := range list {
			key := fmt.Sprintf("| %s | %d | %d | %d |", group, max(f.Level, 1), f.Version, f.Argument)
			rows[key] = append(rows[key], f.Name)
		}
		for key, names := range rows {
			slices.Sort(names)
			want = append(want, key+" "+strings.Join(names, ", ")+" |")
		}
	}
	for _, row := range want {
		if !strings.Contains(string(page), row+"\n") {
			t.Errorf("docs/groups.md does not have this row:\n%s", row)
		}
	}
	if steps := append(state.StepsOf(state.LevelHosts), state.StepsOf(state.LevelHosts+1)...); len(steps) > 0 {
		t.Errorf("steps of a level that no release has: %v", steps)
	}
}
