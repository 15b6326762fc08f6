from django.db import models


class Order(models.Model):
    """Something that tasks work on."""

    name = models.CharField(max_length=100)
    paid = models.BooleanField(default=False)
