package nsm_test

import (
	"testing"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
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
	nsmtest.CheckCalls(t, golden.CheckText(t, "testdata/calls-v1.txt", r.Text.Bytes()), nsm.Functions())
}
