package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openvstorage/scripts/server"
)

// Groups and disks that the release before has made open and are used. If one part that
// this release has written is put among those of the older release, the older release
// refuses it.
func TestPartsOfReleaseBefore(t *testing.T) {
	long(t)
	if *standIn != "" {
		t.Skip("needs the management of ovs")
	}
	dir := t.TempDir()
	before, now := filepath.Join(dir, "before"), filepath.Join(dir, "now")
	s := &system{t: t, Ovs: server.Ovs{Bin: olderOvs(t), Data: before}}
	s.command = s.Up()
	s.start()
	s.create("disk", 16*mib)
	want := scribble(t, s.Socket, "disk", 1, 0, 2*mib)
	s.ovs("vdisk", "sync", "disk")
	must(t, s.Stop(stopMax))
	sh(t, "cp", "-a", before, now)

	present := upAt(t, now)
	if got := content(t, present.Socket, "disk"); !bytes.Equal(got[:2*mib], want) {
		t.Error("it holds other data")
	}
	scribble(t, present.Socket, "disk", 2, 4*mib, 2*mib)
	present.ovs("vdisk", "sync", "disk")
	must(t, present.Stop(stopMax))

	logs, err := filepath.Glob(filepath.Join(now, "arakoon", "abm", "log", "*.raft"))
	must(t, err)
	newest, err := filepath.Rel(now, logs[len(logs)-1])
	must(t, err)
	for _, part := range []string{newest, "arakoon/abm/state", "asd/0/identity"} {
		t.Run(part, func(t *testing.T) {
			mixed := filepath.Join(t.TempDir(), "mixed")
			sh(t, "cp", "-a", before, mixed)
			must(t, os.RemoveAll(filepath.Join(mixed, part)))
			sh(t, "cp", "-a", filepath.Join(now, part), filepath.Join(mixed, part))
			o := &system{t: t, Ovs: server.Ovs{Bin: s.Bin, Data: mixed}}
			said := ""
			if p, err := server.Start(o.Up()); err != nil {
				said = err.Error()
			} else {
				said = o.ovs("alba", "osd", "list", "--json")
				p.Kill()
			}
			if !strings.Contains(said, "newer release") {
				t.Errorf("the release before says: %s", said)
			}
			t.Logf("the release before says: %s", said)
		})
	}
}
