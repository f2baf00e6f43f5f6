package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
	"openvstorage/internal/size"
)

func (cmds vdiskCommands) create() *cobra.Command {
	var bytes size.Bytes
	c := &cobra.Command{
		Use:               "create NAME --size SIZE",
		Short:             "make an empty vDisk",
		Example:           "  ovs vdisk create disk1 --size 10GiB",
		Args:              wants("NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			if bytes == 0 {
				return usagef("%s needs --size, for instance --size 10GiB", c.CommandPath())
			}
			client, err := cmds.client()
			if err != nil {
				return err
			}
			v, err := client.Create(c.Context(), args[0], uint64(bytes))
			if err != nil {
				return err
			}
			return cmds.printMade("created", v)
		},
	}
	c.Flags().Var(&bytes, "size", "size of the vDisk, for instance 10GiB")
	return c
}

// printMade reports a new vDisk and where to attach it.
func (cmds vdiskCommands) printMade(what string, v control.VDisk) error {
	return cmds.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s (%s)\n", what, v.Name, human(v.Size))
		for _, uri := range v.URIs {
			fmt.Fprintln(w, uri)
		}
	})
}
