// Package albatest is a whole ALBA backend in memory, for tests. Its disks are models,
// and its managers run their functions on an ordered map. Its client and its
// maintenance are the real ones.
package albatest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"

	"github.com/google/uuid"
)

// Backend is a backend whose parts tests can reach.
type Backend struct {
	*client.Client
	Fleet  *fleet.Fleet
	ABM    *abm.Client
	NSM    *nsm.Client
	Work   *maintenance.Maintenance // not started
	States [2]*nsmtest.Store        // of the ABM and the NSM
	Disks  map[uint64]*osdtest.Memory
	Faults map[uint64]*osdtest.Faulty // around the disks

	host uint64
	t    testing.TB
}

// Capacity of each disk, in bytes.
const Capacity = 512 << 20

// New makes a backend of n disks, all on one node, with a preset. change may
// change the client's options.
func New(t testing.TB, n int, p preset.Preset, change func(*client.Options)) *Backend {
	t.Helper()
	b := &Backend{
		Fleet: fleet.New(nil), States: [2]*nsmtest.Store{nsmtest.New(abm.Functions()...), nsmtest.New(nsm.Functions()...)},
		Disks: make(map[uint64]*osdtest.Memory), Faults: make(map[uint64]*osdtest.Faulty), t: t,
	}
	b.ABM, b.NSM = abm.NewClient(b.States[0], b.States[0]), nsm.NewClient(b.States[1], b.States[1])
	ctx := context.Background()
	b.must(b.ABM.Init(ctx, uuid.New()))
	data, err := p.Append(nil)
	b.must(err)
	_, err = b.ABM.PutPreset(ctx, p.Name, 0, data)
	b.must(err)
	b.must(b.ABM.SetDefaultPreset(ctx, p.Name))
	b.host, err = b.ABM.PutHost(ctx, "nsm", nil, false)
	b.must(err)
	for range n {
		b.AddDisk()
	}
	b.Work = maintenance.New(b.WorkOptions())
	o := client.Options{ABM: b.ABM, Host: b.hostOf, Fleet: b.Fleet, Bad: b.Work.Bad, EpochAge: time.Nanosecond}
	if change != nil {
		change(&o)
	} else {
		o.Patience = time.Hour // a busy machine makes no disk late, and no fragment is left behind
	}
	b.Client = client.New(o)
	t.Cleanup(func() { b.must(b.Client.Close()) })
	return b
}

// WorkOptions are the options of Work, for tests that need other ones. Its clock
// stands still, and what has failed is tried again by the next call.
func (b *Backend) WorkOptions() maintenance.Options {
	return maintenance.Options{
		ABM: b.ABM, Host: b.hostOf, Fleet: b.Fleet, RebuildAfter: -1, Retry: -1, Now: func() time.Time { return time.Unix(1, 0) },
		Invalidate: func(ns uint64, name string) { b.Client.Invalidate(ns, name) },
	}
}

// AddDisk takes another disk into the backend and returns its number.
func (b *Backend) AddDisk() uint64 {
	b.t.Helper()
	return b.AddDiskOn("node", "")
}

// AddDiskOn is AddDisk for a disk of a node in a zone.
func (b *Backend) AddDiskOn(node, zone string) uint64 {
	b.t.Helper()
	ctx := context.Background()
	id := uuid.New()
	b.must(b.ABM.RegisterOSD(ctx, abm.OSD{LongID: id, Node: node}))
	number, err := b.ABM.ClaimOSD(ctx, id)
	b.must(err)
	b.attach(number, id, node)
	b.Fleet.Disk(number).SetZone(zone)
	return number
}

func (b *Backend) attach(number uint64, id uuid.UUID, node string) {
	ctx := context.Background()
	b.Disks[number] = osdtest.NewMemory(id, Capacity)
	b.Faults[number] = osdtest.NewFaulty(b.Disks[number])
	d := b.Fleet.Add(number, id, node, fmt.Sprintf("disk/%d", number))
	d.Attach(b.Faults[number])
	b.must(d.Refresh(ctx))
	b.must(b.ABM.Carry(ctx, b.host, b.NSM))
}

// Replace gives a disk up and takes a new one in its place.
func (b *Backend) Replace(old uint64) uint64 {
	b.t.Helper()
	ctx := context.Background()
	id := uuid.New()
	b.must(b.ABM.RegisterOSD(ctx, abm.OSD{LongID: id, Node: "node"}))
	number, err := b.ABM.ReplaceOSD(ctx, old, id)
	b.must(err)
	b.Fleet.Remove(old)
	delete(b.Disks, old)
	b.attach(number, id, "node")
	return number
}

// Take takes a disk away. Return brings it back as it was.
func (b *Backend) Take(number uint64) { b.Fleet.Disk(number).Detach(fmt.Errorf("it was taken away")) }

// Return brings a disk back that was taken away.
func (b *Backend) Return(number uint64) {
	b.t.Helper()
	b.Fleet.Disk(number).Attach(b.Faults[number])
	b.must(b.Fleet.Disk(number).Refresh(context.Background()))
}

func (b *Backend) hostOf(number uint64) (*nsm.Client, error) {
	if number != b.host {
		return nil, fmt.Errorf("no host %d", number)
	}
	return b.NSM, nil
}

// Check verifies the managers' states, and that the disks have exactly the fragments
// that objects name.
func (b *Backend) Check() {
	b.t.Helper()
	b.must(b.States[0].View(func(tx userfn.Tx) error { return abm.Check(tx) }))
	b.must(b.States[1].View(func(tx userfn.Tx) error { return nsm.Check(tx) }))
	b.must(b.Work.Audit(context.Background()))
}

func (b *Backend) must(err error) {
	if err != nil {
		b.t.Helper()
		b.t.Fatal(err)
	}
}

// Small is a preset with blocks of 4 KiB and chunks of 64 KiB, so that small
// objects have several of each.
func Small(policies ...policy.Policy) preset.Preset {
	p := preset.Default(3)
	p.Name, p.Policies = "small", policies
	p.Scheme.BlockLog2, p.ChunkSize, p.InlineMax, p.ObjectMax = 12, 64<<10, 4<<10, 64<<20
	return p
}
