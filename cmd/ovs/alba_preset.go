package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/host"
	"openvstorage/internal/control"
)

// presetCommands are the commands of `ovs alba preset`.
type presetCommands struct{ *app }

func (cmds presetCommands) group() *cobra.Command {
	return group("preset", "presets, which say how vDisks are stored: list, show, create, delete",
		cmds.list(), cmds.show(), cmds.create(), cmds.delete())
}

// usedPreset is a preset as it is printed, with the number of namespaces that have it.
type usedPreset struct {
	Default    bool          `json:"default"`
	Namespaces uint64        `json:"namespaces"`
	Preset     preset.Preset `json:"preset"`
}

func (cmds presetCommands) ask(c *cobra.Command) ([]usedPreset, error) {
	client, err := cmds.client()
	if err != nil {
		return nil, err
	}
	return presetsOf(c.Context(), client)
}

// presetsOf asks for the presets and decodes them.
func presetsOf(ctx context.Context, client *control.Client) ([]usedPreset, error) {
	all, err := client.Presets(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]usedPreset, len(all))
	for i, p := range all {
		list[i] = usedPreset{Default: p.Default, Namespaces: p.Namespaces}
		if err := json.Unmarshal(p.Preset, &list[i].Preset); err != nil {
			return nil, fmt.Errorf("preset of ovs up: %w", err)
		}
	}
	return list, nil
}

func (cmds presetCommands) list() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "list the presets",
		Args:              wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := cmds.ask(c)
			if err != nil {
				return err
			}
			return cmds.print(list, func(w io.Writer) { writePresets(w, list) })
		},
	}
}

func writePresets(w io.Writer, list []usedPreset) {
	fmt.Fprintln(w, "PRESET\tDEFAULT\tVDISKS\tPOLICIES\tCOMPRESSION\tCIPHER\tCHUNK")
	for _, p := range list {
		chosen := "-"
		if p.Default {
			chosen = "default"
		}
		cipher := p.Preset.Scheme.Cipher.String()
		if key := p.Preset.Scheme.Key; key != 0 {
			cipher += fmt.Sprintf(" (key %d)", key)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", p.Preset.Name, chosen, p.Namespaces,
			policies(p.Preset.Policies), p.Preset.Scheme.Compression, cipher, human(uint64(p.Preset.ChunkSize)))
	}
}

func policies(list []policy.Policy) string {
	text := make([]string, len(list))
	for i, p := range list {
		text[i] = p.String()
	}
	return strings.Join(text, " ")
}

func (cmds presetCommands) show() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "print a preset as JSON, to change a copy of it",
		Example:           "  ovs alba preset show default > fast.json",
		Args:              wants("NAME"),
		ValidArgsFunction: cmds.offers().presets(),
		RunE: func(c *cobra.Command, args []string) error {
			list, err := cmds.ask(c)
			if err != nil {
				return err
			}
			for _, p := range list {
				if p.Preset.Name != args[0] {
					continue
				}
				b, err := p.Preset.JSON()
				if err != nil {
					return err
				}
				if _, err = cmds.stdout.Write(b); err == nil {
					cmds.notePlain(p.Preset)
				}
				return err
			}
			return fmt.Errorf("preset %q: %w; see `ovs alba preset list`", args[0], control.ErrNotFound)
		},
	}
}

// notePlain says what a preset with a cipher leaves unsealed. It says so on standard error, as
// standard output is the preset, and goes to a file.
func (cmds presetCommands) notePlain(p preset.Preset) {
	if p.Scheme.Cipher != preset.CipherNone {
		fmt.Fprintf(cmds.stderr, "preset %s: %v seals what is stored; %s, in a directory that only its owner can read\n", p.Name, p.Scheme.Cipher, host.BufferPlain)
	}
}

func (cmds presetCommands) create() *cobra.Command {
	asDefault := false
	c := &cobra.Command{
		Use:   "create FILE",
		Short: "make a preset of a file of JSON",
		Long: `ovs alba preset create makes a preset of what ovs alba preset show prints, under
a name of its own. With --default vDisks that are made from now on have it;
those that are there keep theirs.`,
		Example: "  ovs alba preset show default > fast.json\n  (change its name, and what else is to differ)\n  ovs alba preset create fast.json --default",
		Args:    wants("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := host.ReadPreset(args[0])
			if err != nil {
				return err
			}
			client, err := cmds.client()
			if err != nil {
				return err
			}
			text, err := json.Marshal(p)
			if err != nil {
				return err
			}
			if err := client.CreatePreset(c.Context(), text, asDefault); err != nil {
				return err
			}
			cmds.notePlain(p)
			return cmds.done("created preset", p.Name)
		},
	}
	c.Flags().BoolVar(&asDefault, "default", false, "give it to vDisks that are made from now on")
	return c
}

func (cmds presetCommands) delete() *cobra.Command {
	return &cobra.Command{
		Use:               "delete NAME",
		Short:             "delete a preset that no vDisk has and that is not the default",
		Args:              wants("NAME"),
		ValidArgsFunction: cmds.offers().presets(),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			if err := client.DeletePreset(c.Context(), args[0]); err != nil {
				return err
			}
			return cmds.done("deleted preset", args[0])
		}),
	}
}
