package embedded

import (
	"context"
	"fmt"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/preset"
)

// Preset is a preset and how it is used.
type Preset struct {
	preset.Preset
	Default    bool   `json:"default"`
	Namespaces uint64 `json:"namespaces"` // that use it
}

// PresetStore is the presets of a backend, which the ABM keeps.
type PresetStore struct {
	abm       *abm.Client
	decisions *decisions
	mayUse    func(context.Context, preset.Preset) error // refuses a preset whose key cannot be used
}

// Presets returns all presets, in order of name.
func (s *PresetStore) Presets(ctx context.Context) ([]Preset, error) {
	rec, err := s.abm.Backend(ctx, userfn.Consistent)
	if err != nil {
		return nil, err
	}
	all, err := s.abm.Presets(ctx, userfn.Consistent)
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

// Preset returns one preset. The name "" is that of the default preset.
func (s *PresetStore) Preset(ctx context.Context, name string) (preset.Preset, error) {
	rec, err := s.abm.Preset(ctx, name, userfn.Consistent)
	if err != nil {
		return preset.Preset{}, err
	}
	return preset.Decode(rec.Data)
}

// PresetOf returns the preset of a namespace. It does not wait for the ABM's group: the
// local state will do, as a namespace keeps its preset.
func (s *PresetStore) PresetOf(ctx context.Context, namespace string) (preset.Preset, error) {
	n, err := s.abm.Namespace(ctx, namespace, userfn.Local)
	if err != nil {
		return preset.Preset{}, err
	}
	rec, err := s.abm.Preset(ctx, n.Preset, userfn.Local)
	if err != nil {
		return preset.Preset{}, err
	}
	return preset.Decode(rec.Data)
}

// CreatePreset makes a preset. With asDefault it becomes the default for new
// namespaces. A preset is refused if it needs a key that is not there.
func (s *PresetStore) CreatePreset(ctx context.Context, p preset.Preset, asDefault bool) error {
	data, err := p.Append(nil)
	if err != nil {
		return err
	}
	if err := s.mayUse(ctx, p); err != nil {
		return err
	}
	err = s.decisions.decide(ctx, func(ctx context.Context) error {
		_, err := s.abm.PutPreset(ctx, p.Name, 0, data)
		return err
	})
	if err != nil || !asDefault {
		return err
	}
	return s.decisions.decide(ctx, func(ctx context.Context) error { return s.abm.SetDefaultPreset(ctx, p.Name) })
}

// DeletePreset deletes a preset that no namespace has and that is not the
// default.
func (s *PresetStore) DeletePreset(ctx context.Context, name string) error {
	return s.decisions.decide(ctx, func(ctx context.Context) error { return s.abm.DeletePreset(ctx, name) })
}
