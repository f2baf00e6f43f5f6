package arakooncmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

// written is what a write prints.
type written struct {
	Revision uint64  `json:"revision"`
	Changed  *bool   `json:"changed,omitempty"`
	Old      *string `json:"old,omitempty"`
	Count    *uint64 `json:"count,omitempty"`
}

// ofWrite makes a command that changes a key. fill fills in the write from the arguments
// behind group and key.
func (cmds commands) ofWrite(use, short string, args cobra.PositionalArgs, action string, fill func(w *control.KeyWrite, args []string) error) *cobra.Command {
	known := false
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Long: short + `.

The groups hold records that belong together, and with what is on disks. A change of
one by hand can lose data: take a backup first, and then give --i-know.`,
		Args:              args,
		ValidArgsFunction: cmds.groupsOnly,
		RunE: func(c *cobra.Command, args []string) (err error) {
			w := control.KeyWrite{Group: args[0], Action: action, Known: known}
			if w.Key, err = cmds.parse(args[1]); err != nil {
				return err
			}
			if fill != nil {
				if err = fill(&w, args[2:]); err != nil {
					return err
				}
			}
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			r, err := control.OfGroups(client).Write(c.Context(), w)
			if err != nil {
				return err
			}
			return cmds.printWritten(r)
		},
	}
	c.Flags().BoolVar(&known, "i-know", false, "I know what the records of this group belong to")
	return c
}

func (cmds commands) printWritten(r control.KeyWritten) error {
	out := written{Revision: r.Revision, Changed: r.Changed, Count: r.Count}
	if r.Old != nil {
		text := show(*r.Old)
		out.Old = &text
	}
	return cmds.Print(out, func(w io.Writer) {
		fmt.Fprintf(w, "revision\t%d\n", r.Revision)
		if r.Changed != nil {
			fmt.Fprintf(w, "changed\t%v\n", *r.Changed)
		}
		if out.Old != nil {
			fmt.Fprintf(w, "old value\t%s\n", *out.Old)
		}
		if r.Count != nil {
			fmt.Fprintf(w, "deleted\t%d\n", *r.Count)
		}
	})
}

func (cmds commands) value(into **[]byte, text string) error {
	b, err := cmds.parse(text)
	*into = &b
	return err
}

func (cmds commands) withValue(w *control.KeyWrite, args []string) error {
	return cmds.value(&w.Value, args[0])
}

func (cmds commands) set() *cobra.Command {
	return cmds.ofWrite("set GROUP KEY VALUE", "set a key", cmds.Wants("GROUP", "KEY", "VALUE"), control.ActionSet, cmds.withValue)
}

func (cmds commands) confirm() *cobra.Command {
	return cmds.ofWrite("confirm GROUP KEY VALUE", "set a key unless it has that value already", cmds.Wants("GROUP", "KEY", "VALUE"), control.ActionConfirm, cmds.withValue)
}

func (cmds commands) delete() *cobra.Command {
	return cmds.ofWrite("delete GROUP KEY", "delete a key", cmds.Wants("GROUP", "KEY"), control.ActionDelete, nil)
}

func (cmds commands) deletePrefix() *cobra.Command {
	return cmds.ofWrite("delete-prefix GROUP PREFIX", "delete all keys with a prefix", cmds.Wants("GROUP", "PREFIX"), control.ActionDeletePrefix, nil)
}

func (cmds commands) replace() *cobra.Command {
	remove := false
	args := func(c *cobra.Command, args []string) error {
		if remove {
			return cmds.Wants("GROUP", "KEY")(c, args)
		}
		return cmds.Wants("GROUP", "KEY", "VALUE")(c, args)
	}
	c := cmds.ofWrite("replace GROUP KEY VALUE | GROUP KEY --delete", "set or delete a key, and show the value that it had", args, control.ActionReplace, func(w *control.KeyWrite, args []string) error {
		if remove {
			return nil
		}
		return cmds.withValue(w, args)
	})
	c.Flags().BoolVar(&remove, "delete", false, "delete the key")
	return c
}

func (cmds commands) testAndSet() *cobra.Command {
	expected, value := "", ""
	var c *cobra.Command
	c = cmds.ofWrite("test-and-set GROUP KEY [--expect VALUE] [--value VALUE]",
		"set a key to --value, or delete it without one, if it has the value --expect, or without that is absent", cmds.Wants("GROUP", "KEY"), control.ActionTestAndSet,
		func(w *control.KeyWrite, _ []string) error {
			if c.Flags().Changed("expect") {
				if err := cmds.value(&w.Expected, expected); err != nil {
					return err
				}
			}
			if !c.Flags().Changed("value") {
				return nil
			}
			return cmds.value(&w.Value, value)
		})
	c.Flags().StringVar(&expected, "expect", "", "the `value` that it must have (default: it must be absent)")
	c.Flags().StringVar(&value, "value", "", "the `value` to set (default: delete it)")
	return c
}
