package abm_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/internal/format/golden"
)

// The arguments of calls are in raft logs: calls-v1.txt holds one of each function,
// which is written and read alike for ever.
func TestGoldenCalls(t *testing.T) {
	r := &nsmtest.Calls{}
	c := abm.NewClient(r, r)
	health := abm.Health{Capacity: 1, Used: 2, LastRead: 3, LastWrite: 4, LastError: 5, Errors: 6, ChecksumErrors: 7}
	nsmtest.CheckTaken(t,
		c.Init(ctx, [16]byte{1}),
		c.RegisterOSD(ctx, abm.OSD{LongID: [16]byte{1}, Node: "a", Endpoint: []byte{2}, Health: health}),
		nsmtest.ErrorOf(c.ReplaceOSD(ctx, 3, [16]byte{1})),
		c.LoseOSD(ctx, 3),
		c.PurgeOSD(ctx, 3),
		c.UpdateHealth(ctx, []abm.HealthUpdate{{LongID: [16]byte{2}, Health: health}}),
		nsmtest.ErrorOf(c.PutPreset(ctx, "p", 2, []byte("data"))),
		c.DeletePreset(ctx, "p"),
		c.SetDefaultPreset(ctx, "p"),
		nsmtest.ErrorOf(c.CreateNamespace(ctx, "n", "p")),
		nsmtest.ErrorOf(c.DeleteNamespace(ctx, "n")),
		nsmtest.ErrorOf(c.PutHost(ctx, "h", []byte{1}, true)),
		nsmtest.ErrorOf(c.MarkDelivered(ctx, 1, 2)),
		nsmtest.ErrorOf(c.TakeLease(ctx, "l", 3, "holder")),
		c.PutKeyCheck(ctx, abm.KeyCheck{Number: 7, Kind: abm.KeyCheckV1, Value: [32]byte{1}}),
	)
	nsmtest.CheckCalls(t, golden.CheckText(t, "testdata/calls-v1.txt", r.Text.Bytes()), nsmtest.AtLevel(0, abm.Functions()))
}

// The calls of many hosts: calls-v4.txt, after their level.
func TestGoldenHostCalls(t *testing.T) {
	r := &nsmtest.Calls{}
	c := abm.NewClient(r, r)
	w := abm.Work{Number: 3, Fence: 4, Beat: 5}
	nsmtest.CheckTaken(t,
		c.PutNode(ctx, abm.Node{ID: "id", Name: "name", Zone: "zone"}),
		c.ForgetNode(ctx, "id"),
		c.MoveOSD(ctx, [16]byte{1}, "node", []byte{2}, 3),
		c.CancelDrain(ctx, 3),
		c.FinishOSD(ctx, 3),
		c.SetHost(ctx, "h", abm.HostLost),
		nsmtest.ErrorOf(c.RemoveHost(ctx, "h")),
		nsmtest.ErrorOf(abm.Queue{Client: c}.AddWork(ctx, []abm.NewWork{{Name: "w", Data: []byte("data")}})),
		nsmtest.ErrorOf(abm.Queue{Client: c}.TakeOver(ctx, w, "holder")),
		abm.Queue{Client: c}.FailWork(ctx, w, "reason"),
		abm.Queue{Client: c}.DropWork(ctx, 3),
		nsmtest.ErrorOf(abm.Queue{Client: c}.Progress(ctx, abm.Job{Name: "j", Version: 1, Done: 2, Total: 3, Cursor: []byte{4}})),
		nsmtest.ErrorOf((abm.Moves{Client: c}).BeginMove(ctx, abm.Namespace{Number: 1, Generation: 2}, 3)),
	)
	nsmtest.CheckCalls(t, golden.CheckText(t, "testdata/calls-v4.txt", r.Text.Bytes()), nsmtest.AtLevel(userfn.LevelHosts, abm.Functions()))
}

// An OSD that was told its zone is of version 2, in the call and stored; a reader
// that is told none keeps what is known.
func TestGoldenZone(t *testing.T) {
	r := &nsmtest.Calls{}
	o := abm.OSD{LongID: [16]byte{1}, Node: "a", Endpoint: []byte{2}, Zone: "zone"}
	if err := abm.NewClient(r, r).RegisterOSD(ctx, o); !errors.Is(err, nsmtest.ErrTaken) {
		t.Fatal(err)
	}
	s, c := manager(t)
	for range 2 {
		if err := c.RegisterOSD(ctx, o); err != nil {
			t.Fatal(err)
		}
		o.Zone = ""
	}
	_ = s.View(func(tx userfn.Tx) error {
		v, _ := tx.Get(append([]byte("abm/O"), o.LongID[:]...))
		fmt.Fprintf(&r.Text, "stored - %x\n", v)
		return nil
	})
	text := golden.CheckText(t, "testdata/osd-v2.txt", r.Text.Bytes())
	v, err := hex.DecodeString(string(bytes.Fields(text)[5]))
	if err != nil || v[0] != 2 {
		t.Fatalf("%x, %v", v, err)
	}
	old := nsmtest.New(abm.Functions()...)
	old.Edit(func(tx userfn.Tx) { tx.Set(append([]byte("abm/O"), o.LongID[:]...), v) })
	if got, err := abm.NewClient(old, old).OSD(ctx, o.LongID, userfn.Consistent); err != nil || got.Zone != "zone" || got.Node != "a" {
		t.Fatal(got, err)
	}
}
