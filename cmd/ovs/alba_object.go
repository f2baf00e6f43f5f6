package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
	"openvstorage/internal/counted"
)

// objectsMax bounds what `ovs alba object list` holds in memory: columns have one width, so
// all rows are gathered before the first is printed.
const objectsMax = 1_000_000

// objectCommands are the commands of `ovs alba object`.
type objectCommands struct{ *app }

func (cmds objectCommands) group() *cobra.Command {
	return group("object", "objects of a namespace: list and show", cmds.list(), cmds.show())
}

func (cmds objectCommands) list() *cobra.Command {
	limit, after := 1000, ""
	c := &cobra.Command{
		Use:               "list NAMESPACE [PREFIX]",
		Short:             "list the objects of a namespace, or of a vDisk, by name",
		Example:           "  ovs alba object list disk1 sco-",
		Args:              oneOrTwo("NAMESPACE", "PREFIX"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 1 || limit > objectsMax {
				return usagef("%s: --limit %d: give it 1 to %d", c.CommandPath(), limit, objectsMax)
			}
			client, err := cmds.client()
			if err != nil {
				return err
			}
			prefix := ""
			if len(args) == 2 {
				prefix = args[1]
			}
			page := control.ObjectPage{Objects: []control.Object{}, More: true}
			// The server gives pages of a size of its own, so it is asked until the limit is
			// reached.
			for next := after; page.More && len(page.Objects) < limit; {
				p, err := client.Objects(c.Context(), args[0], prefix, next, limit-len(page.Objects))
				if err != nil {
					return err
				}
				page.Objects, page.More = append(page.Objects, p.Objects...), p.More
				if p.More {
					next = p.Objects[len(p.Objects)-1].Name
				}
			}
			return cmds.printShort(page, func(w io.Writer) { writeObjects(w, page) })
		},
	}
	c.Flags().IntVar(&limit, "limit", limit, "list `n` objects at most")
	c.Flags().StringVar(&after, "after", "", "begin behind the object of this `name`")
	return c
}

func writeObjects(w io.Writer, page control.ObjectPage) {
	fmt.Fprintln(w, "OBJECT\tSIZE\tSTORED\tPOLICY\tWIDTH\tPUT")
	for _, o := range page.Objects {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", o.Name, human(o.Size), human(o.Stored), o.Policy, width(o), when(o.Put))
	}
	if page.More {
		fmt.Fprintf(w, "there are more: go on with --after %s, or give a larger --limit\n", page.Objects[len(page.Objects)-1].Name)
	}
}

// width says how many fragments an object's weakest chunk has.
func width(o control.Object) string {
	switch {
	case o.Width == 0:
		return "-"
	case o.Full:
		return fmt.Sprint(o.Width)
	}
	return fmt.Sprintf("%d, below full", o.Width)
}

func (cmds objectCommands) show() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAMESPACE OBJECT",
		Short:             "show an object: its chunks, where their fragments are, and how they are",
		Args:              wants("NAMESPACE", "OBJECT"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			o, err := client.Object(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return cmds.print(o, func(w io.Writer) { writeObject(w, o) })
		}),
	}
}

func writeObject(w io.Writer, o control.Object) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("object", "%s", o.Name)
	row("id", "%s", o.ID)
	row("size", "%s (%d bytes)", human(o.Size), o.Size)
	row("stored", "%s in fragments", human(o.Stored))
	row("state", "%s", o.State)
	row("policy", "%s", o.Policy)
	row("width", "%s", width(o))
	row("version", "%d", o.Version)
	row("put", "%s", when(o.Put))
	for i, c := range o.Chunks {
		row("chunk", "%d: %s, stored as %s", i, human(uint64(c.Plain)), human(uint64(c.Stored)))
		for j, f := range c.Fragments {
			row("fragment", "%d/%d on disk %d, %s: %s", i, j, f.OSD, human(uint64(f.Length)), f.State)
		}
	}
}

// oneOrTwo checks that there is one argument, or two.
func oneOrTwo(needed, optional string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 1 || len(args) == 2 {
			return nil
		}
		return usagef("%s wants %s [%s], got %s; see %s --help", c.CommandPath(), needed, optional, counted.Of(len(args), "argument", "arguments"), c.CommandPath())
	}
}
