package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openvstorage/internal/control"
)

// The first host of a cluster loses its groups, and the other host with it: they come back
// from a backup on the first one alone. The other's members are of an older life, and it is
// refused; a new host joins, and gets members.
func TestRestoreCluster(t *testing.T) {
	f := newFleet(t)
	f.up(1)
	f.join(2)
	f.holds(2)
	f.ovs(1, "vdisk", "create", "v", "--size", "1GiB")
	all := filepath.Join(f.dir, "all")
	f.ovs(1, "backup", "metadata", "--to", all)
	f.ovs(1, "vdisk", "create", "later", "--size", "1GiB")
	second := ""
	for _, h := range f.hosts(1) {
		if h.Zone == "z2" {
			second = h.ID.String()
		}
	}
	f.gone(1)
	f.gone(2)
	if err := os.RemoveAll(filepath.Join(f.data(1), "arakoon")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.try(1, "recover", "--from", "disks"); err == nil || !strings.Contains(err.Error(), "nsm-0: the key of a fragment does not say") {
		t.Errorf("from disks: %v", err)
	}
	if _, err := f.try(1, "recover", "--from", "nothing", "abm"); err == nil || !strings.Contains(err.Error(), "group abm is not made from nothing alone") {
		t.Errorf("from nothing: %v", err)
	}
	if _, err := f.try(1, "recover", "--from", "thin air"); err == nil || !strings.Contains(err.Error(), "--from is surviving-member, backup") {
		t.Errorf("from thin air: %v", err)
	}
	if _, err := f.try(1, "recover", "abm", all, "--from", "backup"); err == nil || !strings.Contains(err.Error(), "goes together with them alone") {
		t.Errorf("one group: %v", err)
	}
	if _, err := f.try(1, "recover", "nsm-0", all, "--from", "backup"); err == nil || !strings.Contains(err.Error(), "on host "+second) {
		t.Errorf("one group, of which another host has a member: %v", err)
	}
	if _, err := f.try(1, "recover", "--from", "backup"); err == nil || !strings.Contains(err.Error(), "wants BACKUPDIR") {
		t.Errorf("of no backup: %v", err)
	}
	out := f.ovs(1, "recover", "--from", "backup", all)
	if !strings.Contains(out, second+": its members are given up") || !strings.Contains(out, "registry, member 1") {
		t.Errorf("it says %s", out)
	}
	f.up(1)
	if list := f.ovs(1, "vdisk", "list"); !strings.Contains(list, "v ") || strings.Contains(list, "later") {
		t.Errorf("vDisks: %s", list)
	}
	f.ovs(1, "vdisk", "create", "more", "--size", "1GiB")
	// Host 2 comes up with what it has, and is let in nowhere; its members hold nobody up.
	_ = f.start(2, "")
	f.ovs(1, "host", "remove", second, "--lost")
	f.join(3)
	f.holds(3)
	var groups []control.ArakoonGroup
	f.await("the new host has learners, and nobody else is there", func() bool {
		if err := json.Unmarshal([]byte(f.ovs(1, "arakoon", "status", "--json")), &groups); err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			if len(g.Learners) != 1 || len(g.Voters) != 1 || g.Learners[0] < 1<<20 {
				return false
			}
		}
		return len(groups) == 3
	})
	f.ovs(1, "vdisk", "delete", "more")
}

// One group of a host is lost: a start says so, and it is made anew beside the others, of its
// part of a backup of all.
func TestRecoverOneGroup(t *testing.T) {
	f := newFleet(t)
	f.up(1)
	f.ovs(1, "vdisk", "create", "v", "--size", "1GiB")
	all := filepath.Join(f.dir, "all")
	f.ovs(1, "backup", "metadata", "--to", all)
	f.gone(1)
	lost := filepath.Join(f.data(1), "arakoon", "nsm-0")
	if err := errors.Join(os.RemoveAll(lost), os.RemoveAll(lost+".marks")); err != nil {
		t.Fatal(err)
	}
	if err := f.start(1, ""); err == nil || !strings.Contains(err.Error(), "ovs recover nsm-0 FILE --from backup") {
		t.Fatalf("a start without it: %v", err)
	}
	if out, err := f.try(1, "recover", "nsm-0", all, "--from", "backup"); err == nil || !strings.Contains(out, "made anew from backup") || !strings.Contains(err.Error(), "nothing was changed") {
		t.Fatalf("nobody has typed anything: %v, %s", err, out)
	}
	if out := f.ovs(1, "recover", "nsm-0", all, "--from", "backup", "--yes"); !strings.Contains(out, "made anew: group nsm-0") {
		t.Errorf("it says %s", out)
	}
	f.up(1)
	if list := f.ovs(1, "vdisk", "list"); !strings.Contains(list, "v ") {
		t.Errorf("vDisks: %s", list)
	}
	f.ovs(1, "alba", "backend", "resume-deletion")
	f.ovs(1, "vdisk", "delete", "v")
	f.gone(1)
}

// What docs/operations.md says about a restore is done as it stands there.
func TestRestoreAsOperationsSay(t *testing.T) {
	f := newFleet(t)
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Restore from a backup\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := strings.Split(section, "```sh\n")[1:]
	if len(blocks) != 2 {
		t.Fatalf("it has %d blocks", len(blocks))
	}
	bash := func(block string) *exec.Cmd {
		block = strings.ReplaceAll(block, "/mnt/backups", f.dir)
		c := exec.Command("bash", "-euc", block)
		c.Dir = f.dir
		c.Env = append(os.Environ(), "OVS_DATA=data", "PATH="+f.dir+":"+os.Getenv("PATH"))
		return c
	}
	run := func(block string) {
		t.Helper()
		if out, err := bash(block).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s\n%s", err, block, out)
		}
	}
	up := func() {
		t.Helper()
		if f.host[1], err = startUp(bash("exec ovs up --data data"), startTimeout); err != nil {
			t.Fatal(err)
		}
	}
	up()
	run("ovs vdisk create vm1 --size 1GiB")
	backup, _, _ := strings.Cut(blocks[0], "```")
	run(backup)
	f.gone(1)
	lost, _, _ := strings.Cut(blocks[1], "```")
	before, after, ok := strings.Cut(lost, "ovs up --data data\n")
	if !ok {
		t.Fatalf("nothing is started in %q", lost)
	}
	run(before)
	up()
	run(after)
	run("ovs vdisk list | grep vm1")
	run("! ovs alba backend status | grep suspended")
	f.gone(1)
}

// gone kills a host, and waits until its locks are free.
func (f *fleet) gone(n int) {
	f.t.Helper()
	p := f.host[n]
	f.kill(n)
	select {
	case <-p.exited:
	case <-time.After(startTimeout):
		f.t.Fatalf("host %d was killed, and is there", n)
	}
}
