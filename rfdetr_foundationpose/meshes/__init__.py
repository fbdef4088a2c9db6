"""Mesh files of any origin -> the arrays that renderers take.

One way: a reader (``obj``, ``ply``, ``gltf``, ``stl``, ``scene``) transcribes a file to a ``RawMesh``; ``cleaning`` drops
what cannot be seen and turns faces outwards, ``decimation`` thins out what no renderer could show, ``appearance`` resolves
colours and textures, ``normals`` and ``diameter`` measure. ``pose.mesh`` calls them in that order.
"""
