package nsm_test

import (
	"testing"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/internal/format/golden"
)

// The arguments of calls are in raft logs: calls-v1.txt holds one of each function,
// which is written and read alike for ever.
func TestGoldenCalls(t *testing.T) {
	r := &nsmtest.Calls{}
	c := nsm.NewClient(r, r)
	o, p := object("a", 1, "one", 1, 2, 3), object("b", 2, "two")
	nsmtest.CheckTaken(t,
		nsmtest.ErrorOf(c.Put(ctx, 1, nsm.ReplaceIf, 7, o)),
		nsmtest.ErrorOf(c.PutMany(ctx, 1, []nsm.Put{{Mode: nsm.Create, Object: o}, {Mode: nsm.CreateOrEqual, Object: p}})),
		nsmtest.ErrorOf(c.Delete(ctx, 1, []string{"a", "b"}, &nsm.Condition{Name: "a", Version: 5})),
		nsmtest.ErrorOf(c.Update(ctx, 1, nsm.Update{Name: "b", ID: id(2), Revision: 3, Epoch: 1, Manifest: []byte("m"), Changes: []nsm.Change{{Chunk: 1, Fragment: 2, To: nsm.Fragment{OSD: 7, Version: 4}}}})),
		nsmtest.ErrorOf(c.OpenEpoch(ctx, 1, 2)),
		nsmtest.ErrorOf(c.CloseEpoch(ctx, 1, 1)),
		nsmtest.ErrorOf(c.MarkDeleted(ctx, 3, []nsm.FragmentKey{{Namespace: 1, ID: id(2), Chunk: 3, Fragment: 4, Version: 5}})),
		nsmtest.ErrorOf(c.Deliver(ctx, 11, []nsm.Message{{Kind: nsm.MessageCreateNamespace, Namespace: 2}, {Kind: nsm.MessageDeleteNamespace, Namespace: 1},
			{Kind: nsm.MessageLinkOSD, OSD: 3, Node: "n"}, {Kind: nsm.MessageUnlinkOSD, OSD: 3, Lost: true}})),
		nsmtest.ErrorOf(c.Cleanup(ctx, 1, 9)),
		nsmtest.ErrorOf(c.ForgetOSD(ctx, 3)),
	)
	nsmtest.CheckCalls(t, golden.CheckText(t, "testdata/calls-v1.txt", r.Text.Bytes()), nsmtest.AtLevel(0, nsm.Functions()))
}

// The calls of many hosts: calls-v4.txt, after their level.
func TestGoldenHostCalls(t *testing.T) {
	r := &nsmtest.Calls{}
	c := nsm.NewClient(r, r)
	o := object("a", 1, "one", 1, 2, 3)
	o.Version, o.Revision, o.Time, o.ManifestSize = 5, 6, 7, uint32(len(o.Manifest))
	came := nsm.Namespace{Objects: 1, Size: 2, Stored: 3, Move: nsm.Move{Generation: 4, Complete: true, Changes: 5}}
	left := nsm.Namespace{State: nsm.NamespaceMoved, Epochs: nsm.Epochs{Minimum: 1, Next: 9}, NextVersion: 8, Objects: 1, Size: 2, Stored: 3, Move: nsm.Move{Generation: 4}}
	nsmtest.CheckTaken(t,
		nsmtest.ErrorOf(c.Deliver(ctx, 11, []nsm.Message{{Kind: nsm.MessageLinkOSD, OSD: 3, Node: "n"}, {Kind: nsm.MessageMoveOSD, OSD: 3, Node: "m"},
			{Kind: nsm.MessageKnowOSD, OSD: 4, Node: "m", Lost: true}, {Kind: nsm.MessageImportNamespace, Namespace: 2, Generation: 3, Host: 4},
			{Kind: nsm.MessageCancelImport, Namespace: 2, Generation: 3, Host: 4}})),
		nsmtest.ErrorOf(c.Apply(ctx, 1, nsm.Sequence{
			Asserts: []nsm.Assert{{Kind: nsm.AssertFixed, Name: "a", ID: id(1), Hash: [32]byte{2}, Version: 3, Revision: 4}},
			Puts:    []nsm.Put{{Mode: nsm.ReplaceIf, Version: 7, Object: o}}, Deletes: []string{"b"}})),
		nsmtest.ErrorOf((nsm.Moves{Client: c}).LeaveExport(ctx, 1, 4, came)),
		nsmtest.ErrorOf((nsm.Moves{Client: c}).TrimChanges(ctx, 1, 4, 5)),
		nsmtest.ErrorOf((nsm.Moves{Client: c}).DropMoved(ctx, 1, 4, 9)),
		nsmtest.ErrorOf((nsm.Moves{Client: c}).ImportPage(ctx, 1, 4, nsm.Page{After: "", Last: "a", Complete: true, Objects: []nsm.Moved{{Name: "a", Object: o}}})),
		nsmtest.ErrorOf((nsm.Moves{Client: c}).ImportChanges(ctx, 1, 4, nsm.Changes{After: 1, Last: 3, Objects: []nsm.Moved{{Name: "b"}, {Name: "a", Object: o}}})),
		nsmtest.ErrorOf((nsm.Moves{Client: c}).Activate(ctx, 1, 4, left)),
	)
	nsmtest.CheckCalls(t, golden.CheckText(t, "testdata/calls-v4.txt", r.Text.Bytes()), nsmtest.AtLevel(userfn.LevelHosts, nsm.Functions()))
}
