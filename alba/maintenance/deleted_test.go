package maintenance_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/object"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/internal/gate"
)

// Deletion waits for no repair, so an object may be deleted while it is repaired, or
// while a read of it is made again. Such an object is gone, and not unreadable.
func TestDeletedMeanwhile(t *testing.T) {
	for name, report := range map[string]func(w *maintenance.Maintenance, bad client.Bad){
		"repair": func(w *maintenance.Maintenance, bad client.Bad) { w.Bad(bad) },
		"read": func(w *maintenance.Maintenance, bad client.Bad) {
			w.Unread(client.Unread{Namespace: bad.Namespace, Name: bad.Name, Object: bad.Object, Range: object.Range{Len: 4096}, Err: errors.New("it failed")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			b := albatest.New(t, 4, twoOne, nil)
			check(t, b.CreateNamespace(ctx, "ns"))
			check(t, b.Namespace("ns").Put(ctx, "o", osdtest.Data(50_000, 1))) // one chunk: three fragments
			o, err := b.NSM.Get(ctx, 1, "o", userfn.Consistent)
			check(t, err)
			opt := b.WorkOptions()
			opt.Tick, opt.Scrub, opt.Now = time.Hour, -1, nil
			w := maintenance.New(opt)
			w.Start()
			defer w.Close()

			read, deleted := gate.New(), gate.New()
			deleted.Open()
			f := o.Chunks[0].Fragments[0]
			b.Faults[f.OSD].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Read}, Match: of(string(o.ID[:])), Gate: read, Count: 1})
			for _, d := range b.Faults {
				d.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Match: of(string(o.ID[:])), Gate: deleted, After: true})
			}
			report(w, client.Bad{Namespace: 1, Name: "o", Object: o.ID, OSD: f.OSD})
			repaired := make(chan error, 1)
			go func() { repaired <- w.Repair(ctx) }() // as the search for absent fragments does
			check(t, read.Arrived(ctx, 1))
			check(t, b.Namespace("ns").Delete(ctx, []string{"o"}, nil))
			w.Wake()
			check(t, deleted.Arrived(ctx, 3))
			read.Open()
			check(t, <-repaired)
			if n, example := w.Failed(); n != 0 {
				t.Errorf("%d objects are said to be unreadable: %s", n, example)
			}
			if n := w.Stats().Failures; n != 0 {
				t.Errorf("%d failures", n)
			}
		})
	}
}
