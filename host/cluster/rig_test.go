package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/host/cluster"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/generation"
	"openvstorage/trust"
	"openvstorage/trust/trusttest"
)

// What a passphrase costs is a matter of package trust: here each cluster has one.
func TestMain(m *testing.M) {
	trusttest.CheapSeals()
	m.Run()
}

// nextAddress numbers addresses of loopback: no two hosts have the same name.
var nextAddress atomic.Uint32

func newAddress() string {
	n := nextAddress.Add(1)
	return fmt.Sprintf("127.93.%d.%d:0", n>>8, n&0xff)
}

// machine is a data directory and what is said about it.
type machine struct {
	fs      disk.FS
	dir     *datadir.Directory
	address string
	now     func() time.Time
	log     *slog.Logger
	records trust.Store // that a host which has joined changes
	roles   trust.Roles
	members cluster.Members
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{address: newAddress(), now: time.Now, log: slog.New(slog.DiscardHandler)}
	m.open(t, crashdisk.New())
	return m
}

// open claims the directory on a disk, as a start does.
func (m *machine) open(t *testing.T, fsys disk.FS) {
	t.Helper()
	if err := m.tryOpen(fsys); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) tryOpen(fsys disk.FS) (err error) {
	m.fs = fsys
	m.dir, err = datadir.Open(fsys, "/d")
	return err
}

func (m *machine) options(t *testing.T, join string) cluster.Options {
	t.Helper()
	c := cluster.Config{Listen: m.address, Zone: "z", Join: join}
	l, err := cluster.Listen(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	c.Roles = m.roles
	return cluster.Options{Config: c, Records: m.records, Members: m.members, FS: m.fs, Dir: m.dir, Release: "test", Logger: m.log, Listeners: l, Now: m.now}
}

// claim counts a start of a first host, as its groups do.
func (m *machine) claim(t *testing.T, n uint64) generation.Mark {
	t.Helper()
	mark := generation.Mark{Number: n, Start: n + 1000}
	if err := m.dir.Change(func(r *datadir.Record) {
		r.Generation, r.Settled, r.History = n, n, r.History.Add(mark)
	}); err != nil {
		t.Fatal(err)
	}
	return mark
}

func serve(t *testing.T, h *cluster.Host) {
	t.Helper()
	if err := h.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeHost(t, h) })
}

func closeHost(t *testing.T, h *cluster.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Close(ctx); err != nil {
		t.Error(err)
	}
}

// first is the first host of a cluster, which serves.
func first(t *testing.T) (*cluster.Host, *machine, *trusttest.Store) {
	t.Helper()
	m, store := newMachine(t), trusttest.NewStore()
	return firstAt(t, m, store), m, store
}

func firstAt(t *testing.T, m *machine, store trust.Store) *cluster.Host {
	t.Helper()
	h, err := cluster.Lead(t.Context(), m.options(t, ""), store, m.claim(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, h)
	return h
}

func token(t *testing.T, h *cluster.Host) string {
	t.Helper()
	made, err := manage(h).MakeToken(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return made.Line
}

// join is a host that has joined, and serves.
func join(t *testing.T, of *cluster.Host) (*cluster.Host, *machine) {
	t.Helper()
	m := newMachine(t)
	return joinAs(t, of, m), m
}

// joinAs is join for a machine that is there.
func joinAs(t *testing.T, of *cluster.Host, m *machine) *cluster.Host {
	t.Helper()
	h, err := cluster.Resume(t.Context(), m.options(t, token(t, of)))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, h)
	return h
}

// withdraw makes room for further tokens.
func withdraw(t *testing.T, store trust.Store) {
	t.Helper()
	r := trust.NewRegistrar(trust.RegistrarOptions{Store: store})
	all, err := r.Tokens(t.Context())
	for _, k := range all {
		if !k.Used() { // those make room by themselves
			err = errors.Join(err, r.WithdrawToken(t.Context(), k.Hash))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func manage(h *cluster.Host) cluster.Management { return cluster.Management{Host: h} }
