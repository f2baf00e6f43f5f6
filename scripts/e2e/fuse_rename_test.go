package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKillUnderRename: the process is killed while a directory with vDisks and other
// files is renamed again and again. At the next start all of them have one name: that
// of the last rename that was answered, or that of the one after it.
func TestKillUnderRename(t *testing.T) {
	s, dir := mounted(t)
	at := func(i int, name string) string { return filepath.Join(dir, fmt.Sprint("vm", i%3), name) }
	must(t, os.MkdirAll(at(0, "nvram"), 0o755))
	for i := range 8 {
		must(t, os.WriteFile(at(0, fmt.Sprintf("disk%d.raw", i)), make([]byte, 8192), 0o600))
		must(t, os.WriteFile(at(0, fmt.Sprintf("nvram/vars%d", i)), []byte("vars"), 0o600))
	}
	must(t, os.WriteFile(at(0, "empty.raw"), nil, 0o600))
	whole := func(i int) []string {
		var list []string
		_ = filepath.WalkDir(at(i, ""), func(name string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				list = append(list, e.Name())
			}
			return nil
		})
		slices.Sort(list)
		return list
	}
	want := whole(0)
	r := rand.New(rand.NewPCG(rand.Uint64(), 2))
	done := 0
	for round := range 6 {
		kill := time.AfterFunc(time.Duration(1+r.IntN(150))*time.Millisecond, s.Kill)
		for unix.Rename(at(done, ""), at(done+1, "")) == nil {
			done++
		}
		kill.Stop()
		<-s.Done()
		s.start()
		var there []int
		for i := range 3 {
			if _, err := os.Stat(at(i, "")); err == nil {
				there = append(there, i)
			}
		}
		if len(there) != 1 || there[0] != done%3 && there[0] != (done+1)%3 {
			t.Fatalf("round %d, after %d renamings: there are %v", round, done, there)
		}
		if there[0] != done%3 {
			done++
		}
		if got := whole(done); !slices.Equal(got, want) {
			t.Fatalf("round %d: %v is there, not %v", round, got, want)
		}
		if list := s.ovs("vdisk", "list"); strings.Count(list, fmt.Sprintf("vm%d/", done%3)) != 8 {
			t.Errorf("round %d: %s", round, list)
		}
	}
	t.Logf("%d renamings", done)
}

// TestSmallFileSync: what was written to a small file before an fsync is there after a
// kill, though the file was never closed.
func TestSmallFileSync(t *testing.T) {
	s, dir := mounted(t)
	name := filepath.Join(dir, "vars")
	synced := ""
	for i := range 5 {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
		must(t, err)
		line := fmt.Sprintln("line", i)
		_, err = f.WriteString(line)
		must(t, errors.Join(err, f.Sync()))
		synced += line
		_, err = f.WriteString("not synced")
		must(t, err)
		s.Kill()
		f.Close()
		s.start()
		got, err := os.ReadFile(name)
		must(t, err)
		if !strings.HasPrefix(string(got), synced) || strings.TrimPrefix(string(got), synced) != "" && !strings.HasPrefix(string(got), synced+"not") {
			t.Fatalf("round %d: the file has %q, synced was %q", i, got, synced)
		}
		synced = string(got)
	}
}
