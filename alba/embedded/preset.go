package embedded

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/preset"
)

// Preset is a preset and who uses it.
type Preset struct {
	preset.Preset
	Default    bool   `json:"default"`
	Namespaces uint64 `json:"namespaces"` // that have it
}

// Presets returns all presets, in order of name.
func (b *Backend) Presets(ctx context.Context) ([]Preset, error) {
	rec, err := b.abm.Backend(ctx, userfn.Consistent)
	if err != nil {
		return nil, err
	}
	all, err := b.abm.Presets(ctx, userfn.Consistent)
	if err != nil {
		return nil, err
	}
	list := make([]Preset, len(all))
	for i, p := range all {
		if list[i].Preset, err = preset.Decode(p.Data); err != nil {
			return nil, fmt.Errorf("preset %q: %w", p.Name, err)
		}
		list[i].Version, list[i].Default, list[i].Namespaces = p.Version, p.Name == rec.Default, p.Uses
	}
	return list, nil
}

// Preset returns one preset, "" being the default.
func (b *Backend) Preset(ctx context.Context, name string) (preset.Preset, error) {
	rec, err := b.abm.Preset(ctx, name, userfn.Consistent)
	if err != nil {
		return preset.Preset{}, err
	}
	return preset.Decode(rec.Data)
}

// PresetOf returns the preset of a namespace. It waits for nobody: a namespace keeps
// its preset.
func (b *Backend) PresetOf(ctx context.Context, namespace string) (preset.Preset, error) {
	n, err := b.abm.Namespace(ctx, namespace, userfn.Local)
	if err != nil {
		return preset.Preset{}, err
	}
	rec, err := b.abm.Preset(ctx, n.Preset, userfn.Local)
	if err != nil {
		return preset.Preset{}, err
	}
	return preset.Decode(rec.Data)
}

// CreatePreset makes a preset, and the default one of namespaces to come if
// asDefault says so. It refuses one that needs a key that is not there.
func (b *Backend) CreatePreset(ctx context.Context, p preset.Preset, asDefault bool) error {
	data, err := p.Append(nil)
	if err != nil {
		return err
	}
	if p.Scheme.Cipher != preset.CipherNone && b.ring.keys[p.Scheme.Key] == nil {
		return fmt.Errorf("preset %q seals with master key %d, and the key file of `ovs up --keys` has none of that number", p.Name, p.Scheme.Key)
	}
	if p.Scheme.Cipher != preset.CipherNone {
		if err := b.proveKey(ctx, p.Scheme.Key); err != nil {
			return fmt.Errorf("preset %q: %w", p.Name, err)
		}
	}
	err = b.decide(ctx, func(ctx context.Context) error {
		_, err := b.abm.PutPreset(ctx, p.Name, 0, data)
		return err
	})
	if err != nil || !asDefault {
		return err
	}
	return b.decide(ctx, func(ctx context.Context) error { return b.abm.SetDefaultPreset(ctx, p.Name) })
}

// DeletePreset deletes a preset that no namespace has and that is not the
// default.
func (b *Backend) DeletePreset(ctx context.Context, name string) error {
	return b.decide(ctx, func(ctx context.Context) error { return b.abm.DeletePreset(ctx, name) })
}

func sortOSDs(list []OSD) {
	slices.SortFunc(list, func(a, b OSD) int { return cmp.Compare(a.Number, b.Number) })
}
