package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openvstorage/arakoon"
	"openvstorage/host/recovery"
	"openvstorage/internal/datadir"
)

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

// mirrored waits until host 2 holds all that host 1 answers.
func (f *fleet) mirrored() {
	f.t.Helper()
	f.holds(2)
	f.await("the second host is in sync", func() bool {
		return strings.Contains(f.ovs(1, "status"), "holds all that was answered")
	})
	if s := f.ovs(1, "host", "list"); !strings.Contains(s, "in sync") {
		f.t.Errorf("the list of hosts does not say so: %s", s)
	}
}

// create makes vDisks on host 1 until that fails, and returns the names that were answered.
func (f *fleet) create(made func(n int)) <-chan []string {
	done := make(chan []string, 1)
	go func() {
		var names []string
		for n := 0; ; n++ {
			name := fmt.Sprintf("answered-%03d", n)
			if _, err := f.try(1, "vdisk", "create", name, "--size", "1MiB"); err != nil {
				done <- names
				return
			}
			names = append(names, name)
			made(len(names))
		}
	}()
	return done
}

// A host whose only other one is destroyed under writes goes on by `ovs recover`, with all that
// was answered. Others join it, and it is a cluster again. The one that was given up is refused
// when a copy of it comes back.
func TestRecoverSurvivor(t *testing.T) {
	f := newFleet(t)
	secret := filepath.Join(f.dir, "passphrase")
	if err := os.WriteFile(secret, []byte("not kept on a host\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.more = []string{"--ca-passphrase-file", secret}
	f.up(1)
	token := strings.TrimSpace(f.ovs(1, "host", "token"))
	f.more = nil
	if err := f.start(2, token); err != nil {
		t.Fatal(err)
	}
	f.more = []string{"--ca-passphrase-file", secret}
	f.mirrored()
	copied := filepath.Join(f.dir, "copy")
	f.kill(1)
	if out, err := exec.Command("cp", "-a", f.data(1), copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f.up(1)
	f.mirrored()

	enough := make(chan struct{})
	answered := f.create(func(n int) {
		if n == 8 {
			close(enough)
		}
	})
	<-enough
	f.kill(1)
	names := <-answered
	if err := os.RemoveAll(f.data(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.try(2, "recover", "--yes"); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("ovs up uses the directory: %v", err)
	}
	f.kill(2)
	if out, err := f.try(2, "recover"); err == nil || !strings.Contains(out, "may be missing") || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("nobody has typed anything: %v, %s", err, out)
	}
	var plan recovery.Plan
	if err := json.Unmarshal([]byte(f.ovs(2, "recover", "--yes", "--json")), &plan); err != nil || plan.Life != 1 || len(plan.Groups) != 3 || len(plan.GivenUp) != 1 {
		t.Fatalf("%+v, %v", plan, err)
	}
	for _, g := range plan.Groups {
		if !g.InSync {
			t.Errorf("group %s was not in sync", g.Name)
		}
	}
	state := f.ovs(2, "arakoon", "dump", "state", filepath.Join(f.data(2), "arakoon", "registry.2"), "--bytes", "-1")
	for _, name := range names {
		if !strings.Contains(state, name) {
			t.Errorf("vDisk %s was answered, and is not there", name)
		}
	}
	if _, err := f.try(2, "recover", "--yes"); err == nil || !strings.Contains(err.Error(), "needs no recovery") {
		t.Errorf("it is recovered already: %v", err)
	}

	f.up(2)
	f.await("the lost host is given up, and this one signs", func() bool {
		_, err := f.try(2, "host", "token")
		return err == nil && strings.Contains(f.ovs(2, "host", "list"), "removed")
	})
	for n := 3; n <= 4; n++ {
		if err := f.start(n, strings.TrimSpace(f.ovs(2, "host", "token"))); err != nil {
			t.Fatalf("host %d does not join: %v", n, err)
		}
	}
	f.await("three voters of each group", func() bool {
		full := 0
		for _, h := range f.hosts(2) {
			if h.State == "joined" && len(h.Members) == 3 {
				full++
			}
		}
		return full == 3 && strings.Contains(f.ovs(2, "status"), "3 voters each, one host may be lost")
	})

	f.kill(4)
	if _, err := f.try(4, "recover", "--yes"); err == nil || !strings.Contains(err.Error(), "needs no recovery") || !strings.Contains(err.Error(), "answers at") {
		t.Errorf("two of three hosts are there: %v", err)
	}

	if err := os.Rename(copied, f.data(1)); err != nil {
		t.Fatal(err)
	}
	// Longer than it would wait for a host that is away.
	if err := f.within(1, "", arakoon.SyncPatience+2*time.Second); err == nil {
		t.Error("the copy serves")
	} else if !strings.Contains(err.Error(), "refuses this member") {
		t.Errorf("the copy does not say why it does not serve: %v", err)
	}
	// Nobody is there now to refuse it: it knows from before.
	f.kill(2)
	f.kill(3)
	if err := f.within(1, "", arakoon.SyncPatience+2*time.Second); err == nil {
		t.Error("the copy serves when nobody is there any more")
	} else if !strings.Contains(err.Error(), "refuses this member") {
		t.Errorf("the copy does not say why it does not serve: %v", err)
	}
}
