package maintenance_test

import (
	"context"
	"testing"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/internal/gate"
)

// What a wake asks to be deleted is deleted while a repair waits for a disk: room does
// not wait for repairs, whoever has begun them.
func TestDeletionBesideARepair(t *testing.T) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	b := albatest.New(t, 4, twoOne, nil)
	fill(t, b, "ns", 2)
	bad, err := b.NSM.Get(ctx, 1, "o0", userfn.Consistent)
	check(t, err)
	dead, err := b.NSM.Get(ctx, 1, "o1", userfn.Consistent)
	check(t, err)
	o := b.WorkOptions()
	o.Tick, o.Scrub, o.Now = time.Hour, -1, nil
	w := maintenance.New(o)
	w.Start()
	defer w.Close()

	repair, deletion := gate.New(), gate.New()
	for _, f := range b.Faults {
		f.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Match: of(string(bad.ID[:])), Gate: repair})
		f.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Match: of(string(dead.ID[:])), Gate: deletion})
	}
	f := bad.Chunks[0].Fragments[0]
	list, err := b.Disks[f.OSD].Range(ctx, nil, nil, 1000)
	check(t, err)
	for _, info := range list {
		if of(string(bad.ID[:]))(info.Key) {
			b.Disks[f.OSD].Corrupt(info.Key, 0)
		}
	}
	w.Bad(client.Bad{Namespace: 1, Name: "o0", Object: bad.ID, OSD: f.OSD})
	repaired := make(chan error, 1)
	go func() { repaired <- w.Repair(ctx) }()
	check(t, repair.Arrived(ctx, 1))
	check(t, b.Namespace("ns").Delete(ctx, []string{"o1"}, nil))
	w.Wake()
	check(t, deletion.Arrived(ctx, 1))
	deletion.Open()
	repair.Open()
	check(t, <-repaired)
	if n := w.Stats().Repaired; n != 1 {
		t.Errorf("%d fragments were repaired", n)
	}
}
