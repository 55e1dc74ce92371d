package api

import (
	"bytes"
	"context"
	_ "embed"
)

//go:embed openapi.yaml
var document []byte

func (o *operations) GetDocument(context.Context, GetDocumentRequestObject) (GetDocumentResponseObject, error) {
	return GetDocument200ApplicationYamlResponse{Body: bytes.NewReader(document), ContentLength: int64(len(document))}, nil
}
