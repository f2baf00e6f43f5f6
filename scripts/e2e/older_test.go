package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"openvstorage/internal/format"
	"openvstorage/scripts/server"
)

// olderCommit is the last release with the older formats: catalogs, registry values and
// the record of the data directory have the version before, and raft logs, states and
// identities of disks have no life.
const olderCommit = "af2fd56b017582f730e7ca3cf3f625e5d31c7141"

// older is ovs of that commit, which is built once.
var older struct {
	once sync.Once
	bin  []byte
	err  error
}

// olderOvs builds ovs of that commit from the history. Where there is none, as in a
// shallow clone, the test is skipped.
func olderOvs(t *testing.T) string {
	t.Helper()
	need(t, "git", "tar", "go")
	top, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	repo := strings.TrimSpace(string(top))
	if err != nil || exec.Command("git", "-C", repo, "cat-file", "-e", olderCommit+"^{commit}").Run() != nil {
		t.Skipf("needs commit %.12s, which is in no history here (a shallow clone?)", olderCommit)
	}
	older.once.Do(func() { older.bin, older.err = buildOlder(t, repo) })
	if older.err != nil {
		t.Fatalf("build ovs of %.12s: %v", olderCommit, older.err)
	}
	bin := filepath.Join(t.TempDir(), "ovs-older")
	must(t, os.WriteFile(bin, older.bin, 0o700))
	return bin
}

func buildOlder(t *testing.T, repo string) ([]byte, error) {
	dir := t.TempDir()
	archive, bin := filepath.Join(dir, "tree.tar"), filepath.Join(dir, "ovs-older")
	sh(t, "git", "-C", repo, "archive", "--format=tar", "--output="+archive, olderCommit)
	sh(t, "tar", "-x", "-f", archive, "-C", dir)
	build := exec.Command("go", "build", "-o", bin, "./cmd/ovs")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.ReadFile(bin)
}

// TestOlderRelease: what the release before has made opens and is used, after a stop
// and after a kill. That release refuses what this one has written: the directory by
// its record, and without the record by the registry.
func TestOlderRelease(t *testing.T) {
	long(t)
	if *standIn != "" {
		t.Skip("needs the management of ovs")
	}
	before := olderOvs(t)
	for name, end := range map[string]func(*testing.T, *system){
		"stopped": func(t *testing.T, s *system) { must(t, s.Stop(stopMax)) },
		"killed":  func(_ *testing.T, s *system) { s.Kill() },
	} {
		t.Run(name, func(t *testing.T) { testOlder(t, before, end) })
	}
}

const olderSize = 16 * mib

func testOlder(t *testing.T, older string, end func(*testing.T, *system)) {
	dir := filepath.Join(t.TempDir(), "data")
	want := map[string][]byte{}
	write := func(s *system, disk string, seed uint64, off int64) {
		t.Helper()
		p := scribble(t, s.Socket, disk, seed, off, 2*mib)
		if want[disk] == nil {
			want[disk] = make([]byte, olderSize)
		}
		want[disk] = bytes.Clone(want[disk])
		copy(want[disk][off:], p)
	}
	holds := func(s *system, when string) {
		t.Helper()
		for disk, data := range want {
			if !bytes.Equal(content(t, s.Socket, disk), data) {
				t.Errorf("%s: %s holds other data", when, disk)
			}
		}
	}
	clone := func(s *system, disk, snap, child string) {
		t.Helper()
		s.ovs("vdisk", "snapshot", "create", disk, snap)
		s.ovs("vdisk", "clone", disk+"@"+snap, child)
		want[disk+"@"+snap], want[child] = want[disk], want[disk]
	}

	s := &system{t: t, Ovs: server.Ovs{Bin: older, Data: dir}}
	s.command = s.Up()
	s.start()
	s.create("disk", olderSize)
	write(s, "disk", 1, 0)
	clone(s, "disk", "before", "child")
	write(s, "disk", 2, mib)
	write(s, "child", 3, 4*mib)
	holds(s, "the release before")
	end(t, s)

	present := upAt(t, dir)
	holds(present, "opened")
	write(present, "disk", 4, 6*mib)
	write(present, "child", 5, 8*mib)
	clone(present, "child", "after", "grandchild")
	write(present, "grandchild", 6, 10*mib)
	present.ovs("vdisk", "sync", "disk")
	holds(present, "used")
	must(t, present.Stop(stopMax))

	was := files(t, dir)
	newerThan(t, s.command)
	if !maps.EqualFunc(was, files(t, dir), bytes.Equal) {
		t.Error("the release before has changed what it refused")
	}
	putBack(t, filepath.Join(dir, "ovs.format"))
	newerThan(t, s.command)

	present.start()
	holds(present, "opened again")
}

// newerThan starts a server that must say that a newer release wrote what is there.
func newerThan(t *testing.T, c server.Command) {
	t.Helper()
	p, err := server.Start(c)
	if err == nil {
		p.Kill()
		t.Fatal("the release before serves what this one has written")
	}
	if !strings.Contains(err.Error(), "written by a newer release") {
		t.Errorf("it is not refused as of a newer release: %v", err)
	}
	t.Logf("the release before says: %v", err)
}

// files are the names and contents below a directory, but for the lock, which says who
// held it last.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "lock" {
			return err
		}
		all[name], err = os.ReadFile(name)
		return err
	}))
	return all
}

// putBack makes the record of a data directory one of version 3 again.
func putBack(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	for c := range 2 {
		part := b[c*4096 : (c+1)*4096]
		part[10], part[12] = 3, 3
		binary.LittleEndian.PutUint32(part[60:], format.CRC(part[:60]))
		binary.LittleEndian.PutUint32(part[4092:], format.SeededCRC(binary.LittleEndian.Uint64(part[48:]), part[:4092]))
	}
	must(t, os.WriteFile(name, b, 0o600))
}
