package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"openvstorage/host/recovery"
	"openvstorage/internal/datadir"
)

// down kills a host and waits until its locks are free.
func (f *fleet) down(n int) {
	f.t.Helper()
	p := f.host[n]
	f.kill(n)
	f.await("the process is gone", func() bool {
		select {
		case <-p.exited:
			return true
		default:
			return false
		}
	})
}

// holds waits until a host has a member of each group, and says so in its record.
func (f *fleet) holds(n int) {
	f.t.Helper()
	f.await("the host holds members", func() bool {
		b, err := os.ReadFile(filepath.Join(f.data(n), datadir.FormatFile))
		if err != nil {
			return false
		}
		r, _, err := datadir.Decode(b)
		return err == nil && len(r.Groups) == 3
	})
}

// A host whose only other one is destroyed goes on by `ovs recover`, with all that was
// answered; and a copy of the other one is refused when it comes back.
func TestRecoverSurvivor(t *testing.T) {
	f := newFleet(t)
	f.up(1)
	f.join(2)
	f.holds(2)
	copied := filepath.Join(f.dir, "copy")
	f.down(1)
	if out, err := exec.Command("cp", "-a", f.data(1), copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f.up(1)

	// While the other one is there nothing is recovered.
	f.down(2)
	if _, err := f.try(2, "recover", "--yes"); err == nil || !strings.Contains(err.Error(), "needs no recovery") {
		t.Errorf("the other host is there: %v", err)
	}
	f.up(2)
	f.down(1)
	if err := os.RemoveAll(f.data(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.try(2, "recover", "--yes"); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("ovs up uses the directory: %v", err)
	}
	f.down(2)
	if out, err := f.try(2, "recover"); err == nil || !strings.Contains(out, "may be missing") || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("nobody has typed anything: %v, %s", err, out)
	}
	var plan recovery.Plan
	if err := json.Unmarshal([]byte(f.ovs(2, "recover", "--yes", "--json")), &plan); err != nil || plan.Life != 1 || len(plan.Groups) != 3 || len(plan.GivenUp) != 1 {
		t.Fatalf("%+v, %v", plan, err)
	}
	f.up(2)
	t.Log(f.ovs(2, "status"))
	t.Log(f.ovs(2, "host", "list"))
}
