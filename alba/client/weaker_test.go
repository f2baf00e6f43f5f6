package client_test

import (
	"errors"
	"testing"

	"openvstorage/alba/client"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/object"
	"openvstorage/alba/policy"
	"openvstorage/backend"
)

// Whoever can write manifests cannot have a reader take what was never sealed: an object
// whose cipher is weaker than that of its namespace is refused by name. An object that is
// sealed though its namespace does not demand it is read.
func TestWeakerCipherIsRefused(t *testing.T) {
	sealed, plain := presets()["4,2 sealed"], presets()["2,1"]
	b := open(t, sealed)
	raw, err := plain.Append(nil)
	check(t, err)
	_, err = b.ABM.PutPreset(ctx, plain.Name, 0, raw)
	check(t, err)
	check(t, b.CreateWithPreset(ctx, "sealed", sealed.Name))
	check(t, b.CreateWithPreset(ctx, "plain", plain.Name))
	forge := func(namespace, name string, params object.Params, mode nsm.Mode) {
		t.Helper()
		rec, err := b.ABM.Namespace(ctx, namespace, userfn.Consistent)
		check(t, err)
		id := manifest.ObjectID{byte(len(name)), 1}
		params.Namespace, params.Object, params.Policy = rec.Number, id, policy.Default
		e, err := object.NewEncoder(params)
		check(t, err)
		m := &manifest.Manifest{Name: name, Time: 1, Epoch: 1}
		check(t, e.Inline(m, []byte("forged")))
		encoded, err := m.Append(nil)
		check(t, err)
		_, err = b.NSM.Put(ctx, rec.Number, mode, 0, &nsm.Object{Name: name, ID: id, Size: m.Size, Epoch: 1, Time: 1, Manifest: encoded})
		check(t, err)
	}
	ns := b.Namespace("sealed")
	check(t, ns.Put(ctx, "catalog", []byte("ours!!")))
	forge("sealed", "catalog", object.Params{Scheme: plain.Scheme}, nsm.Replace)
	forge("sealed", "sco-1", object.Params{Scheme: plain.Scheme}, nsm.Create)
	for _, name := range []string{"catalog", "sco-1"} {
		p := make([]byte, 6)
		_, err := ns.Get(ctx, name, p, 0)
		if !errors.Is(err, client.ErrWeaker) || !errors.Is(err, backend.ErrCorrupt) {
			t.Errorf("%s: %q, %v", name, p, err)
		}
	}
	master := make([]byte, object.MasterKeySize)
	for i := range master {
		master[i] = 7
	}
	forge("plain", "stronger", object.Params{Scheme: sealed.Scheme, Master: master}, nsm.Create)
	same(t, b.Namespace("plain"), "stronger", []byte("forged"))
}
