package cluster_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"openvstorage/host/cluster"
	"openvstorage/host/roster"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/trust/trusttest"
)

// While the first host is up and its group answers nothing, one that has joined starts
// all the same, and by what it has seen.
func TestFirstHostHangs(t *testing.T) {
	hangs, free := make(chan struct{}), make(chan struct{})
	store := trusttest.NewStore()
	store.Fail = func(string) error {
		select {
		case <-hangs:
			<-free
		default:
		}
		return nil
	}
	one := firstAt(t, newMachine(t), store)
	two, m := join(t, one)
	closeHost(t, two)
	t.Cleanup(func() { close(free) })
	close(hangs)
	o := m.options(t, "")
	o.Wait = time.Millisecond
	again, err := cluster.Resume(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeHost(t, again)
	if again.ID() != two.ID() {
		t.Errorf("it is host %s", again.ID())
	}
}

// A book that could not be written is written when the hosts are looked at again, though
// they are the same by then.
func TestBookIsWrittenAgain(t *testing.T) {
	one, _, _ := first(t)
	faults := faultdisk.New(crashdisk.New())
	m := newMachine(t)
	m.open(t, faults)
	two, err := cluster.Resume(t.Context(), m.options(t, token(t, one)))
	if err != nil {
		t.Fatal(err)
	}
	defer closeHost(t, two)
	full := faults.Inject(faultdisk.Rule{Ops: faultdisk.Rename, Err: errors.New("no room")})
	two.Learn(t.Context())
	full.Remove()
	two.Learn(t.Context())
	book, err := roster.ReadBook(m.fs, "/d/trust/book", one.Cluster())
	if err != nil || len(book.Hosts) != 2 {
		t.Errorf("%+v, %v", book, err)
	}
}

// Names are the same in capitals: a host that listens on one can make tokens.
func TestAddressInCapitals(t *testing.T) {
	m := newMachine(t)
	m.address = "LocalHost:0"
	one := firstAt(t, m, trusttest.NewStore())
	two, _ := join(t, one)
	if a := one.Self().Address; !strings.HasPrefix(a, "localhost:") || two.Cluster() != one.Cluster() {
		t.Errorf("it is at %s", a)
	}
}

// No host reads the sealed key of the authority, by itself or among other keys.
func TestNobodyReadsTheAuthoritysKey(t *testing.T) {
	one, _, _ := first(t)
	two, _ := join(t, one)
	if n, err := two.Keys(t.Context(), "trust/h"); err != nil || n != 2 {
		t.Errorf("%d hosts, %v", n, err)
	}
	for _, prefix := range []string{"trust/a", "trust/", "t", ""} {
		if n, err := two.Keys(t.Context(), prefix); err == nil {
			t.Errorf("%d keys below %q were read", n, prefix)
		}
	}
}
