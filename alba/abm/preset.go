package abm

import (
	"bytes"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/internal/counted"
)

// presetArg: String name, U64 version, Bytes data.
type presetArg struct {
	name    string
	version uint64
	data    []byte
}

func (a *presetArg) Fields(c *record.Codec) {
	c.String(&a.name, MaxLabel)
	c.U64(&a.version)
	c.Bytes(&a.data, MaxPreset)
}

// nameArg: String name.
type nameArg struct{ name string }

func (a *nameArg) Fields(c *record.Codec) { c.String(&a.name, MaxName) }

func presetKey(name string) []byte { return named(tablePreset, name) }

func loadPreset(tx userfn.Tx, name string) (*Preset, error) {
	p := &Preset{Name: name}
	ok, err := load(tx, presetKey(name), p)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, userfn.Errorf(userfn.CodeNotFound, "preset %q: not found", name)
	}
	return p, nil
}

// putPreset creates a preset (version 0), or replaces the data of a preset that has the given
// version. A preset that has the data already is left as it is. It returns the version.
func putPreset(tx userfn.Tx, a *presetArg) (*number, error) {
	if err := validLabel("preset", a.name); err != nil {
		return nil, err
	}
	if len(a.data) == 0 {
		return nil, invalid("preset %q: it is empty", a.name)
	}
	b, err := loadBackend(tx)
	if err != nil {
		return nil, err
	}
	var p Preset
	ok, err := load(tx, presetKey(a.name), &p)
	switch {
	case err != nil:
		return nil, err
	case ok && bytes.Equal(p.Data, a.data):
		return &number{p.Version}, nil
	case ok && a.version == 0:
		return nil, userfn.Errorf(userfn.CodeExists, "preset %q: it exists with other settings, version %d", a.name, p.Version)
	case p.Version != a.version:
		return nil, userfn.Errorf(userfn.CodeConflict, "preset %q: it has version %d, not %d", a.name, p.Version, a.version)
	case !ok && b.Presets >= MaxPresets:
		return nil, userfn.Errorf(userfn.CodeFull, "preset %q: there are %d presets, the most that there may be; delete some", a.name, b.Presets)
	case !ok:
		b.Presets++
		if err := store(tx, backendKey(), b); err != nil {
			return nil, err
		}
	}
	p.Version++
	p.Data = a.data
	return &number{p.Version}, store(tx, presetKey(a.name), &p)
}

// deletePreset deletes a preset that no namespace uses. An absent preset is no error.
func deletePreset(tx userfn.Tx, a *nameArg) (*userfn.Empty, error) {
	b, err := loadBackend(tx)
	if err != nil {
		return nil, err
	}
	var p Preset
	ok, err := load(tx, presetKey(a.name), &p)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return &userfn.Empty{}, nil
	case p.Uses > 0:
		return nil, userfn.Errorf(userfn.CodeInUse, "preset %q: %s it", a.name, counted.Of(p.Uses, "namespace has", "namespaces have"))
	case b.Default == a.name:
		return nil, userfn.Errorf(userfn.CodeInUse, "preset %q: it is the default; make another the default first", a.name)
	}
	tx.Delete(presetKey(a.name))
	b.Presets--
	return &userfn.Empty{}, store(tx, backendKey(), b)
}

func setDefault(tx userfn.Tx, a *nameArg) (*userfn.Empty, error) {
	b, err := loadBackend(tx)
	if err != nil {
		return nil, err
	}
	if _, err := loadPreset(tx, a.name); err != nil {
		return nil, err
	}
	b.Default = a.name
	return &userfn.Empty{}, store(tx, backendKey(), b)
}
