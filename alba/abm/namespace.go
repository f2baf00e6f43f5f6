package abm

import (
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// createArg: String name, String preset, "": the default.
type createArg struct{ name, preset string }

func (a *createArg) Fields(c *record.Codec) {
	c.String(&a.name, MaxName)
	c.String(&a.preset, MaxLabel)
}

func nameKey(name string) []byte   { return named(tableNamespaceName, name) }
func namespaceKey(n uint64) []byte { return key(tableNamespace, n) }

// create gives a namespace its number, preset and host. The namespace can be used once its
// host has applied the message.
func create(tx userfn.Tx, a *createArg) (*Namespace, error) {
	if a.name == "" {
		return nil, invalid("namespace: its name is empty")
	}
	b, err := loadBackend(tx)
	if err != nil {
		return nil, err
	}
	if _, taken := tx.Get(nameKey(a.name)); taken {
		return nil, userfn.Errorf(userfn.CodeNamespaceExists, "namespace %q: it exists", a.name)
	}
	n := &Namespace{Number: b.NextNamespace, Name: a.name, State: NamespaceCreating, Preset: a.preset, Created: tx.Time()}
	if n.Preset == "" {
		n.Preset = b.Default
	}
	p, err := loadPreset(tx, n.Preset)
	if err != nil {
		return nil, err
	}
	p.Uses++
	if err := store(tx, presetKey(n.Preset), p); err != nil {
		return nil, err
	}
	h, err := pickHost(tx)
	if err != nil {
		return nil, err
	}
	n.Host = h.Number
	h.Namespaces++
	if err := send(tx, h, nsm.Message{Kind: nsm.MessageCreateNamespace, Namespace: n.Number}); err != nil {
		return nil, err
	}
	b.NextNamespace++
	if err := store(tx, backendKey(), b); err != nil {
		return nil, err
	}
	if err := store(tx, nameKey(n.Name), &number{n.Number}); err != nil {
		return nil, err
	}
	return n, store(tx, namespaceKey(n.Number), n)
}

func loadNamespace(tx userfn.Tx, n uint64) (*Namespace, error) {
	var rec Namespace
	ok, err := load(tx, namespaceKey(n), &rec)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace %d: not found", n)
	}
	return &rec, nil
}

// remove frees a namespace's name and preset at once, and tells its host to
// remove what is in it.
func remove(tx userfn.Tx, a *nameArg) (*Namespace, error) {
	var at number
	ok, err := load(tx, nameKey(a.name), &at)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace %q: not found", a.name)
	}
	n, err := loadNamespace(tx, at.v)
	if err != nil {
		return nil, err
	}
	if n.State == NamespaceMoving {
		return nil, userfn.Errorf(userfn.CodeInUse, "namespace %q: it is being moved to NSM host %d; finish the move or cancel it first", a.name, n.Other)
	}
	p, err := loadPreset(tx, n.Preset)
	if err != nil {
		return nil, err
	}
	p.Uses--
	if err := store(tx, presetKey(n.Preset), p); err != nil {
		return nil, err
	}
	h, err := loadHost(tx, n.Host)
	if err != nil {
		return nil, err
	}
	if err := send(tx, h, nsm.Message{Kind: nsm.MessageDeleteNamespace, Namespace: n.Number}); err != nil {
		return nil, err
	}
	tx.Delete(nameKey(a.name))
	n.State = NamespaceRemoving
	return n, store(tx, namespaceKey(n.Number), n)
}
