package main

import "github.com/spf13/cobra"

func (a *app) vdiskRename() *cobra.Command {
	return &cobra.Command{
		Use:               "rename OLD NEW",
		Short:             "give a vDisk another name",
		Args:              wants("OLD", "NEW"),
		ValidArgsFunction: a.completeNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.Rename(c.Context(), args[0], args[1]); err != nil {
				return err
			}
			return a.done("renamed", args[1])
		},
	}
}
